"""Going through a selection in bounded transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.dead_letters.select import Selection, last_id, lock_some

BATCH_LETTERS = 1000
BATCH_BYTES = 16_000_000
"""A transaction's letters reach this with their last one at most."""
Write = Callable[[AsyncConnection, list[int]], Awaitable[None]]
"""What is done with a batch, in its transaction."""


async def in_batches(
    engine: AsyncEngine, selection: Selection, but: Sequence[ColumnElement[bool]], write: Write
) -> AsyncIterator[list[int]]:
    """Lock a selection's open letters batch by batch, except those that are `but`, and `write` each; yields the ids.

    Letters that arise meanwhile are left out, so that one which fails again at once is not met a second time.
    """
    async with engine.connect() as conn:
        upto, after = await last_id(conn), 0
    while True:
        async with engine.begin() as conn:
            locked = await lock_some(conn, selection, but, (after, upto), BATCH_LETTERS)
            ids = _at_most(BATCH_BYTES, locked)
            if ids:
                await write(conn, ids)
        if not ids:
            return
        yield ids
        after = ids[-1]


def _at_most(most: int, rows: Sequence[Any]) -> list[int]:
    """The ids of the first rows, up to the one that reaches so many bytes."""
    ids, size = [], 0
    for row in rows:
        if size >= most:
            break
        ids.append(row.id)
        size += row.bytes
    return ids
