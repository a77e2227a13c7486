"""A run's key ranges: of about equal size, found on the unique indexes of both tables."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql
from service.reconcile.values import Run

ROWS_A_RANGE = 40_000
"""Rows of either table in one range: 20 ms of work, and some megabytes of suspects at worst."""
RANGES_A_STEP = 100
"""Ranges planned in one transaction."""


async def plan_some(conn: AsyncConnection, run: Run) -> bool:
    """Plan the next ranges; True once the last user is in a range. The caller holds the run's row."""
    if run.user_id is not None:
        await _add(conn, run, [(0, run.user_id - 1, run.user_id)])
        return True
    chunk, upto = (await conn.execute(sql.PLANNED_UPTO, {"id": run.id})).one()
    number, after = (0 if chunk is None else chunk + 1), (0 if upto is None else upto)
    last = (await conn.execute(sql.LAST_USER)).scalar_one() or 0
    ranges: list[tuple[int, int, int]] = []
    while after < last and len(ranges) < RANGES_A_STEP:
        boundary = (await conn.execute(sql.NEXT_BOUNDARY, {"after": after, "rows": ROWS_A_RANGE})).scalar_one()
        end = last if boundary is None else min(boundary, last)
        ranges.append((number + len(ranges), after, end))
        after = end
    await _add(conn, run, ranges)
    return after >= last


async def _add(conn: AsyncConnection, run: Run, ranges: list[tuple[int, int, int]]) -> None:
    if ranges:
        chunks, afters, uptos = (list(column) for column in zip(*ranges, strict=True))
        await conn.execute(sql.ADD_RANGES, {"id": run.id, "chunks": chunks, "afters": afters, "uptos": uptos})
