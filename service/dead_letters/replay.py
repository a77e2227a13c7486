"""Sending dead letters again: the raw record to its own topic, through the outbox.

What becomes of it is decided where it is read (`service.apply.replayed`): applied, it closes its letter; failed, it
raises the letter's count.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.dead_letters import sql
from service.dead_letters.batches import ALL, Write, in_batches
from service.dead_letters.select import Selection, on_its_way, unsendable
from service.outbox.sql import NOTIFY


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of letters that were sent: closed, failed again, or not come back yet."""

    closed: list[int]
    failed: list[int]
    pending: list[int]


def replay(
    engine: AsyncEngine, selection: Selection, by: str, also: Write | None = None, most: int = ALL
) -> AsyncIterator[list[int]]:
    """Send the open letters of a selection again, in the order in which they came; yields the ids of each transaction.

    One that was sent within the last minute is left out: two people at once send it once. So is one that Kafka does
    not take. `also` is called in each transaction, as for the audit log; `most` letters are sent at most.
    """

    async def send(conn: AsyncConnection, ids: list[int]) -> None:
        await conn.execute(sql.SEND_AGAIN, {"ids": ids})
        await conn.execute(sql.MARK_SENT, {"ids": ids, "by": by})
        await conn.execute(NOTIFY)
        if also is not None:
            await also(conn, ids)

    return in_batches(engine, selection, [on_its_way(), unsendable()], send, most)


async def follow(conn: AsyncConnection, ids: Iterable[int]) -> Followed:
    """Look what became of letters; one that was removed meanwhile counts as closed."""
    wanted = list(ids)
    rows = {row.id: row for row in await conn.execute(sql.FOLLOW, {"ids": wanted})}
    closed = [letter for letter in wanted if letter not in rows or rows[letter].resolved]
    failed = [row.id for row in rows.values() if not row.resolved and not row.on_its_way]
    pending = [row.id for row in rows.values() if not row.resolved and row.on_its_way]
    return Followed(closed, sorted(failed), sorted(pending))
