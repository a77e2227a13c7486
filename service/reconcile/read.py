"""Runs and their issues, as commands, endpoints and `sync.reconcile-completed` show them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql
from service.reconcile.values import CONFIRMED, COUNTS, HEALED, Run, add_up, run_of


async def read_run(conn: AsyncConnection, run_id: UUID) -> Run | None:
    """One run, or None."""
    row = (await conn.execute(sql.READ_RUN, {"id": run_id})).one_or_none()
    return None if row is None else run_of(row)


async def read_runs(conn: AsyncConnection, limit: int = 20) -> list[Run]:
    """The newest runs first."""
    return [run_of(row) for row in await conn.execute(sql.READ_RUNS, {"limit": limit})]


async def report_of(conn: AsyncConnection, run: Run) -> dict[str, Any]:
    """A run in the fixed shape; while it goes on, with the counts so far."""
    progress = (await conn.execute(sql.PROGRESS, {"id": run.id, "most": CONFIRMED if run.dry_run else HEALED})).one()
    counts = run.counts
    if run.finished_at is None:
        counts = add_up((await conn.execute(sql.RANGE_COUNTS, {"id": run.id})).scalars())
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
        "progress": {"ranges_done": progress.done, "ranges_total": progress.total},
        "counts": {name: counts.get(name, 0) for name in COUNTS},
        "would_stop": run.would_stop,
    }


async def read_issues(
    conn: AsyncConnection, run_id: UUID, limit: int, after: tuple[int, str] = (0, "")
) -> list[dict[str, Any]]:
    """A page of a run's issues in key order, beginning behind `after` (user, specialization)."""
    values = {"id": run_id, "limit": limit, "user": after[0], "specialization": after[1]}
    return [dict(row._mapping) for row in await conn.execute(sql.READ_ISSUES, values)]  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
