"""Runs and their issues, as commands, endpoints and `sync.reconcile-completed` show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql
from service.reconcile.pace import Pace, read_paces
from service.reconcile.values import CONFIRMED, COUNTS, HEALED, UNCONFIRMED_BY_KIND, Run, Step, add_up, run_of


async def read_run(conn: AsyncConnection, run_id: UUID) -> Run | None:
    """One run, or None."""
    row = (await conn.execute(sql.READ_RUN, {"id": run_id})).one_or_none()
    return None if row is None else run_of(row)


async def runs_that_begin(conn: AsyncConnection, prefix: str) -> list[Run]:
    """Read the runs whose id begins so, in lower case: two at most, because one more than one is enough to know."""
    return [run_of(row) for row in await conn.execute(sql.RUNS_THAT_BEGIN, {"prefix": prefix})]


async def read_runs(conn: AsyncConnection, limit: int = 20) -> list[Run]:
    """The newest runs first."""
    return [run_of(row) for row in await conn.execute(sql.READ_RUNS, {"limit": limit})]


async def report_of(conn: AsyncConnection, run: Run) -> dict[str, Any]:
    """A run in the fixed shape; while it goes on, with the counts so far."""
    (report,) = await reports_of(conn, [run])
    return report


async def reports_of(conn: AsyncConnection, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The same for any number of runs, in three queries.

    A worker that was healing when its run was cancelled has its batch's effect all the same: the ranges tell of it.
    """
    progress = await _progress(conn, runs)
    living = [run.id for run in runs if run.finished_at is None or run.status == "cancelled"]
    so_far = await _counts_so_far(conn, living)
    paces = await read_paces(conn, runs)
    return [
        _report(run, _with_pace(progress.get(run.id, (0, 0)), paces.get(run.id)), so_far.get(run.id, run.counts))
        for run in runs
    ]


def _with_pace(passes: tuple[int, int], pace: Pace | None) -> dict[str, Any]:
    """How far a run is: in passes over ranges, and in its present phase."""
    now = pace or Pace(Step.DONE)
    return {
        "ranges_done": passes[0],
        "ranges_total": passes[1],
        "phase": now.phase,
        "seconds_left": None if now.seconds_left is None else round(now.seconds_left, 1),
        "pairs_per_second": None if now.pairs_per_second is None else round(now.pairs_per_second, 1),
    }


async def _progress(conn: AsyncConnection, runs: Sequence[Run]) -> dict[UUID, tuple[int, int]]:
    """Passes over ranges that are done, and all of them, by run."""
    values = {"ids": [run.id for run in runs], "passes": [CONFIRMED if run.dry_run else HEALED for run in runs]}
    return {row.run_id: (row.done, row.total) for row in await conn.execute(sql.PROGRESS, values)}


async def _counts_so_far(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    ranges: dict[UUID, list[Mapping[str, int]]] = {run_id: [] for run_id in ids}
    if ids:
        for row in await conn.execute(sql.COUNTS_OF_RUNS, {"ids": ids}):
            ranges[row.run_id].append(row.counts)
    return {run_id: add_up(counts) for run_id, counts in ranges.items()}


def _report(run: Run, progress: dict[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "run_id": str(run.id),
        "status": run.status,
        "dry_run": run.dry_run,
        "direction": run.direction,
        "specialization": run.specialization,
        "user_id": run.user_id,
        "requested_by": run.requested_by,
        "requested_at": run.requested_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "progress": progress,
        "counts": {name: counts.get(name, 0) for name in COUNTS},
        UNCONFIRMED_BY_KIND: dict(run.counts.get(UNCONFIRMED_BY_KIND, {})),
        "would_stop": run.would_stop,
    }


async def read_issues(
    conn: AsyncConnection, run_id: UUID, limit: int, after: tuple[int, str] = (0, "")
) -> list[dict[str, Any]]:
    """A page of a run's issues in key order, beginning behind `after` (user, specialization)."""
    values = {"id": run_id, "limit": limit, "user": after[0], "specialization": after[1]}
    return [dict(row._mapping) for row in await conn.execute(sql.READ_ISSUES, values)]  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
