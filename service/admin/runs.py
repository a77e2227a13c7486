"""Request, read and cancel runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction, ReconcileRequested
from service.admin.audit import audited, check
from service.admin.database import busy_if_unavailable
from service.admin.identity import Identity, NoSuch, Refused
from service.admin.pairs import canonical
from service.outbox.put import put
from service.reconcile.runs import cancel_run as finish_cancelled
from service.reconcile.runs import read_run, report_of, reports_of
from service.reconcile.sql import ADD_RUN, FALLS
from service.reconcile.values import FoundIssue, ReportProgress, RunPhase, RunReport, run_id_of, run_of
from service.sync import BulkSyncResult
from service.sync.bulk import result_of

_SOURCE = "levelsync/api"
_LOCK_RUN_ID = text("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), 0))")
_FIND_REQUEST = text("""
    SELECT arguments, subject, at FROM levelsync.admin_actions
     WHERE action = 'request_run' AND outcome = 'done' AND at > clock_timestamp() - interval '1 day'
       AND arguments ->> 'run_id' = :id
     ORDER BY at LIMIT 1
""")
"""A request that no worker has read yet is not a run, but it has a row in the audit log."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request for a run. The defaults are a dry run of everything."""

    direction: Direction = "progress_to_license"
    dry_run: bool = True
    force: bool = False
    specialization: str | None = None
    user_id: int | None = None
    max_lowered: int | None = None
    """The maximum number of levels that a real run may lower. If there are more, it stops. None means no limit."""

    def as_arguments(self) -> dict[str, Any]:
        """Return the fields as the audit log stores them."""
        return asdict(self)


async def request_run(engine: AsyncEngine, who: Identity, wanted: RunRequest, key: str | None = None) -> UUID:
    """Request a run through the outbox, and return its id. The same `key` again requests nothing new.

    Raises:
        Forbidden, Busy.
        Refused: there is no such specialization, or another run was requested with `key` before.
    """
    run_id = uuid4() if key is None else run_id_of(key, _SOURCE)
    arguments = wanted.as_arguments() | {"run_id": str(run_id)}
    async with audited(engine, who, "request_run", **arguments) as entry, engine.begin() as conn:
        wanted = replace(wanted, specialization=await canonical(conn, wanted.specialization))
        entry.arguments |= wanted.as_arguments()
        await conn.execute(_LOCK_RUN_ID, {"id": str(run_id)})
        before = await _earlier_request(conn, run_id)
        if before is None:
            await put(conn, [_event(run_id, wanted, who)])
        elif before != wanted:
            raise Refused("Another run was requested with this Idempotency-Key before.")
        await entry.done(conn, "requested before" if before else "")
    return run_id


async def create_requested_run(conn: AsyncConnection, run_id: UUID) -> None:
    """Create the run of a request that no worker has read yet. The worker that reads it later finds the run."""
    row = (await conn.execute(_FIND_REQUEST, {"id": str(run_id)})).one_or_none()
    if row is not None:
        await conn.execute(ADD_RUN, _request_of(row).as_arguments() | {"id": run_id, "requested_by": row.subject})


async def report_of_request(conn: AsyncConnection, run_id: UUID) -> RunReport | None:
    """Return the report of a run whose request no worker has read yet; None where nobody requested it here."""
    row = (await conn.execute(_FIND_REQUEST, {"id": str(run_id)})).one_or_none()
    if row is None:
        return None
    wanted = _request_of(row)
    return RunReport(
        run_id=run_id,
        status="planning",
        dry_run=wanted.dry_run,
        direction=wanted.direction,
        specialization=wanted.specialization,
        user_id=wanted.user_id,
        requested_by=row.subject,
        requested_at=row.at,
        progress=ReportProgress(phase=RunPhase.PLANNING),
    )


async def _earlier_request(conn: AsyncConnection, run_id: UUID) -> RunRequest | None:
    """Return what the run of this id does, also before a worker has read its request; None for an unknown id."""
    run = await read_run(conn, run_id)
    if run is not None:
        return RunRequest(run.direction, run.dry_run, run.force, run.specialization, run.user_id, run.max_lowered)
    row = (await conn.execute(_FIND_REQUEST, {"id": str(run_id)})).one_or_none()
    return None if row is None else _request_of(row)


def _request_of(row: Any) -> RunRequest:
    arguments = row.arguments if isinstance(row.arguments, dict) else json.loads(row.arguments)
    return RunRequest(**{name: arguments[name] for name in RunRequest.__slots__ if name in arguments})


def _event(run_id: UUID, wanted: RunRequest, who: Identity) -> ReconcileRequested:
    return ReconcileRequested(id=str(run_id), requested_by=who.subject, **wanted.as_arguments())


_NEWEST = text("""
    SELECT * FROM levelsync.reconcile_runs
     WHERE (requested_at, id) < (:at, :id) ORDER BY requested_at DESC, id DESC LIMIT :limit
""")
NEWEST = (datetime.fromisoformat("9999-12-31T00:00:00+00:00"), UUID(int=2**128 - 1))
"""The cursor of the first page of runs."""
IssueOrder = Literal["lowered", "user", "specialization", "kind", "difference", "status"]
"""`lowered`: pairs with a falling level first; `difference`: the largest first. Equal ones are in key order."""
IssueCursor = tuple[str, int, str]
"""The issue after which a page begins: its place in the order, user and specialization."""
FIRST: IssueCursor = ("", -(2**63), "")
"""The cursor of the first page of issues."""
_ISSUES = text(f"""
    SELECT f.place,
           f.user_id, u.email, f.specialization, f.kind, f.progress_level, f.license_level, f.status, f.detail,
           f.seen_at, f.lowered
      FROM (SELECT * FROM (
                SELECT i.*, {FALLS} AS lowered,
                       CASE CAST(:order AS text)
                       WHEN 'lowered' THEN CASE WHEN {FALLS} THEN '1' ELSE '2' END
                       WHEN 'specialization' THEN i.specialization
                       WHEN 'kind' THEN i.kind
                       WHEN 'status' THEN i.status
                       WHEN 'difference' THEN lpad(CAST(9999999999 - abs(
                            coalesce(CAST(i.progress_level AS bigint), 0) - coalesce(i.license_level, 0)
                            ) AS text), 10, '0')
                       ELSE '1' END COLLATE "C" AS place
                  FROM levelsync.drift_issues i JOIN levelsync.reconcile_runs r ON r.id = i.run_id
                 WHERE i.run_id = :id
                   AND (CAST(:kind AS text) IS NULL OR i.kind = CAST(:kind AS text))
                   AND (CAST(:status AS text) IS NULL OR i.status = CAST(:status AS text))
                   AND (CAST(:of AS text) IS NULL
                        OR upper(i.specialization COLLATE "C") = upper(CAST(:of AS text) COLLATE "C"))) AS every
             WHERE (NOT CAST(:falling AS boolean) OR every.lowered)
               AND (every.place, every.user_id, every.specialization)
                 > (CAST(:place AS text) COLLATE "C", CAST(:user AS bigint), CAST(:specialization AS text))
             ORDER BY every.place, every.user_id, every.specialization LIMIT :limit) AS f
      LEFT JOIN users u ON u.id = f.user_id
     ORDER BY f.place, f.user_id, f.specialization
""")


@dataclass(frozen=True, slots=True)
class IssueFilter:
    """A filter of a run's issues, and their order. `falling`: only pairs whose level the run lowers."""

    order: IssueOrder = "lowered"
    kind: str | None = None
    status: str | None = None
    specialization: str | None = None
    falling: bool = False


@dataclass(frozen=True, slots=True)
class RunIssuePage:
    """A page of a run's issues, and where the next page begins; None where there is no next page."""

    issues: list[FoundIssue]
    next: IssueCursor | None


async def read_report(engine: AsyncEngine, who: Identity, run_id: UUID) -> RunReport:
    """Return the report of a run. While no worker has read its request, its status is `planning`.

    Raises:
        Forbidden, NoSuch, Busy.
    """
    await check(engine, who)
    with busy_if_unavailable():
        async with engine.connect() as conn:
            return await _report(conn, run_id)


async def read_result(engine: AsyncEngine, who: Identity, run_id: UUID) -> BulkSyncResult | None:
    """Return what a run found and did, with the keys of the bulk sync; None until the run has ended.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with busy_if_unavailable():
        async with engine.connect() as conn:
            run = await read_run(conn, run_id)
            return None if run is None or run.finished_at is None else await result_of(conn, run)


async def read_reports(
    engine: AsyncEngine, who: Identity, limit: int = 20, before: tuple[datetime, UUID] = NEWEST
) -> list[RunReport]:
    """Return a page of runs, the newest first, beginning after `before` (requested_at, id).

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with busy_if_unavailable():
        async with engine.connect() as conn:
            rows = (await conn.execute(_NEWEST, {"at": before[0], "id": before[1], "limit": limit})).all()
            return await reports_of(conn, [run_of(row) for row in rows])


async def read_run_issues(  # noqa: PLR0913 - engine and who, as everywhere here, and the page
    engine: AsyncEngine,
    who: Identity,
    run_id: UUID,
    wanted: IssueFilter = IssueFilter(),
    *,
    limit: int = 100,
    after: IssueCursor = FIRST,
) -> RunIssuePage:
    """Return a page of a run's issues, beginning after `after`.

    Raises:
        Forbidden, NoSuch, Busy.
    """
    await check(engine, who)
    values = {
        "id": run_id,
        "order": wanted.order,
        "kind": wanted.kind,
        "status": wanted.status,
        "of": wanted.specialization,
        "falling": wanted.falling,
        "place": after[0],
        "user": after[1],
        "specialization": after[2],
        "limit": limit + 1,
    }
    with busy_if_unavailable():
        async with engine.connect() as conn:
            await _report(conn, run_id)
            found = [(place, FoundIssue(*issue)) for place, *issue in await conn.execute(_ISSUES, values)]
    shown = found[:limit]
    if len(found) <= limit:
        return RunIssuePage([issue for _, issue in shown], None)
    place, last = shown[-1]
    return RunIssuePage([issue for _, issue in shown], (place, last.user_id, last.specialization))


async def cancel_run(engine: AsyncEngine, who: Identity, run_id: UUID) -> RunReport:
    """Cancel a run at once, also one whose request no worker has read yet. Pairs that it has healed stay healed.

    A run that has ended does not change.

    Raises:
        Forbidden, NoSuch, Busy.
    """
    async with audited(engine, who, "cancel_run", run_id=str(run_id)) as entry, engine.begin() as conn:
        await create_requested_run(conn, run_id)
        cancelled = await finish_cancelled(conn, run_id)
        report = await _report(conn, run_id)
        await entry.done(conn, "" if cancelled else f"the run had ended before: {report.status}")
        return report


async def _report(conn: AsyncConnection, run_id: UUID) -> RunReport:
    run = await read_run(conn, run_id)
    report = await report_of_request(conn, run_id) if run is None else await report_of(conn, run)
    if report is None:
        raise NoSuch(f"There is no run {run_id}.")
    return report
