"""Reconcile runs: watching them, reading what they found, cancelling one."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.audit import audited, check
from service.admin.database import asked
from service.admin.errors import NoSuch
from service.admin.identity import Identity
from service.admin.run_requests import on_its_way, take
from service.reconcile.finish import cancel_run as finish_cancelled
from service.reconcile.read import read_issues, read_run, report_of, reports_of
from service.reconcile.values import run_of
from service.sync import BulkSyncResult
from service.sync.everything import result_of

Report = dict[str, Any]
"""A run in the fixed shape (interface, "Commands")."""
_NEWEST = text("""
    SELECT * FROM levelsync.reconcile_runs
     WHERE (requested_at, id) < (:at, :id) ORDER BY requested_at DESC, id DESC LIMIT :limit
""")
NEWEST = (datetime.fromisoformat("9999-12-31T00:00:00+00:00"), UUID(int=2**128 - 1))
"""Before the first page of runs."""
FIRST = (-(2**63), "")
"""Before the first page of issues."""


async def read_report(engine: AsyncEngine, who: Identity, run_id: UUID) -> Report:
    """One run, in the fixed shape; one that no worker has taken yet is `planning`.

    Raises:
        Forbidden, NoSuch, Busy.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            return await _report(conn, run_id)


async def read_result(engine: AsyncEngine, who: Identity, run_id: UUID) -> BulkSyncResult | None:
    """What a run of everything found and did, with the keys of the bulk sync; None as long as it goes on.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            run = await read_run(conn, run_id)
            return None if run is None or run.finished_at is None else await result_of(conn, run)


async def read_reports(
    engine: AsyncEngine, who: Identity, limit: int = 20, before: tuple[datetime, UUID] = NEWEST
) -> list[Report]:
    """A page of runs, the newest first, beginning behind `before` (requested_at, id).

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            rows = (await conn.execute(_NEWEST, {"at": before[0], "id": before[1], "limit": limit})).all()
            return await reports_of(conn, [run_of(row) for row in rows])


async def read_run_issues(
    engine: AsyncEngine, who: Identity, run_id: UUID, limit: int = 100, after: tuple[int, str] = FIRST
) -> list[dict[str, Any]]:
    """A page of what a run found, in key order, beginning behind `after` (user, specialization).

    Raises:
        Forbidden, NoSuch, Busy.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            await _report(conn, run_id)
            return await read_issues(conn, run_id, limit, after)


async def cancel_run(engine: AsyncEngine, who: Identity, run_id: UUID) -> Report:
    """End a run at once, also one whose request is still on its way; what it has healed stays healed.

    One that has ended is left as it is.

    Raises:
        Forbidden, NoSuch, Busy.
    """
    async with audited(engine, who, "cancel_run", run_id=str(run_id)) as entry, engine.begin() as conn:
        await take(conn, run_id)
        cancelled = await finish_cancelled(conn, run_id)
        report = await _report(conn, run_id)
        await entry.done(conn, "" if cancelled else f"it had ended before: {report['status']}")
        return report


async def _report(conn: AsyncConnection, run_id: UUID) -> Report:
    run = await read_run(conn, run_id)
    report = await on_its_way(conn, run_id) if run is None else await report_of(conn, run)
    if report is None:
        raise NoSuch(f"There is no run {run_id}.")
    return report
