"""Watching dead letters on their way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from service.cli import output

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

PATIENCE = 30.0
"""Seconds without one more letter coming back after which nobody waits any longer."""
_LOOK_EVERY = 0.2
_FOLLOWED_AT_ONCE = 10_000


async def collect(batches: AsyncIterator[list[int]], total: int, word: str) -> list[int]:
    """Go through the batches, with a bar on stderr; the ids of all of them."""
    ids: list[int] = []
    with _bar() as bar:
        task = bar.add_task(word, total=total)
        async for batch in batches:
            ids += batch
            bar.update(task, completed=len(ids))
    return ids


async def follow(conn: AsyncConnection, ids: list[int]) -> dict[str, int]:
    """Wait until every letter has come back, or for 30 s none did."""
    pending, closed, failed = ids, 0, 0
    last = time.monotonic()
    with _bar() as bar:
        task = bar.add_task("applying", total=len(ids))
        while pending and time.monotonic() - last < PATIENCE:
            was = len(pending)
            pending, newly_closed, newly_failed = await _look(conn, pending)
            closed, failed = closed + newly_closed, failed + newly_failed
            if len(pending) < was:
                last = time.monotonic()
            bar.update(task, completed=len(ids) - len(pending))
            if pending:
                await asyncio.sleep(_LOOK_EVERY)
    return {"closed": closed, "failed": failed, "pending": len(pending)}


async def _look(conn: AsyncConnection, pending: list[int]) -> tuple[list[int], int, int]:
    from service.dead_letters.replay import follow as look

    found = await look(conn, pending[:_FOLLOWED_AT_ONCE])
    await conn.rollback()
    return pending[_FOLLOWED_AT_ONCE:] + found.pending, len(found.closed), len(found.failed)


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    return output.progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
