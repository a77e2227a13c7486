"""Closing dead letters that nobody wants applied; they stay to be read until their retention ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.dead_letters import sql
from service.dead_letters.batches import ALL, Write, in_batches
from service.dead_letters.select import Selection, on_its_way


def discard(
    engine: AsyncEngine, selection: Selection, by: str, also: Write | None = None, most: int = ALL
) -> AsyncIterator[list[int]]:
    """Close the open letters of a selection; yields the ids of each transaction.

    One that is on its way is left out: nobody knows yet whether it applies. `also` and `most` as in `replay`.
    """

    async def close(conn: AsyncConnection, ids: list[int]) -> None:
        await conn.execute(sql.CLOSE_DISCARDED, {"ids": ids, "by": by})
        if also is not None:
            await also(conn, ids)

    return in_batches(engine, selection, [on_its_way()], close, most)
