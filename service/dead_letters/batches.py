"""Going through a selection in bounded transactions."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.dead_letters.select import Selection, last_id, lock_some

BATCH_LETTERS = 1000
BATCH_BYTES = 16_000_000
"""A transaction's letters reach this with their last one at most."""
ALL = sys.maxsize
Write = Callable[[AsyncConnection, list[int]], Awaitable[None]]
"""What is done with a batch, in its transaction."""


async def in_batches(
    engine: AsyncEngine, selection: Selection, but: Sequence[ColumnElement[bool]], write: Write, most: int
) -> AsyncIterator[list[int]]:
    """Lock a selection's open letters batch by batch, except those that are `but`, and `write` each; yields the ids.

    It ends after `most` letters. Those that arise meanwhile are left out, so that one which fails again at once is not
    met a second time.
    """
    async with engine.connect() as conn:
        upto, after = await last_id(conn), 0
    while most > 0:
        async with engine.begin() as conn:
            locked = await lock_some(conn, selection, but, (after, upto), min(BATCH_LETTERS, most))
            ids = _at_most(BATCH_BYTES, locked)
            if ids:
                await write(conn, ids)
        if not ids:
            return
        yield ids
        after, most = ids[-1], most - len(ids)


def _at_most(most: int, rows: Sequence[Any]) -> list[int]:
    """The ids of the first rows, up to the one that reaches so many bytes."""
    ids, size = [], 0
    for row in rows:
        if size >= most:
            break
        ids.append(row.id)
        size += row.bytes
    return ids
