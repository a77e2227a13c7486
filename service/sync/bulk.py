"""`auto_sync_all`: request a reconcile run and wait for its end. It has the confirmation and the breaker of any run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction, ReconcileRequested
from events.base import INT4_MAX
from service.apply.write import PairResult
from service.core.names import counted
from service.core.pair import PairAction, Sides, Why, decide_pair
from service.levels import read_curriculum
from service.outbox.put import put
from service.reconcile.runs import read_issues, read_run, report_of
from service.reconcile.values import FoundIssue, Run, RunReport, healable
from service.stream.background import until
from service.sync.issues import issue_of
from service.sync.results import SyncResult, of_pair

FIRST_ISSUES = 100
"""Maximum number of issues in a result. The others are read from the run, page by page."""
_LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class BulkSyncResult:
    """The result of a run that has ended: its report, and its first issues with their outcomes."""

    report: RunReport
    issues: list[dict[str, Any]]
    more: bool = False
    """Whether the run has further issues."""

    @property
    def success(self) -> bool:
        """Whether the run completed and no heal failed."""
        return self.report.status == "completed" and not self.report.counts["failed"]

    @property
    def message(self) -> str:
        """The result in words."""
        counts, status = self.report.counts, self.report.status.replace("_", " ")
        if counts["unconfirmed"]:
            differ = counted(counts["unconfirmed"], "pair differs", "pairs differ")
            return f"Run {status}: nothing is confirmed, because the appliers did not catch up; {differ}"
        more = f"; these are the first {FIRST_ISSUES} issues, read the run's issues for all" if self.more else ""
        if self.report.dry_run:
            return f"Dry run {status}: {counted(self._total(), 'pair')} would be synced{more}"
        healed = f"{counts['healed']:,} of {counted(self._total(), 'pair')} synced"
        return f"Run {status}: {healed}, {counts['failed']:,} failed{more}"

    def as_dict(self) -> dict[str, Any]:
        """Return the result with the keys that clients read."""
        shared = {"success": self.success, "dry_run": self.report.dry_run, "total_issues": self._total()}
        named = {"more": self.more, "message": self.message, "run_id": str(self.report.run_id)}
        if self.report.dry_run:
            return shared | {"issues": self.issues} | named
        counts = self.report.counts
        done = {"synced_count": counts["healed"], "failed_count": counts["failed"], "results": self.issues}
        return shared | done | named

    def _total(self) -> int:
        return healable(self.report.counts)


async def sync_all(engine: AsyncEngine, direction: Direction, *, dry_run: bool) -> BulkSyncResult:
    """Request a run of everything and wait for its end, without a time limit.

    Processes with the roles `reconcile` and `relay` do the work.

    Raises:
        InstallationFault: the specializations cannot be used, so that no run can end.
    """
    request = ReconcileRequested(direction=direction, dry_run=dry_run, requested_by="auto_sync_all")
    async with engine.begin() as conn:
        await read_curriculum(conn)
        await put(conn, [request])

    async def look() -> BulkSyncResult | None:
        async with engine.connect() as conn:
            await read_curriculum(conn)
            run = await read_run(conn, UUID(request.id))
            return await result_of(conn, run) if run is not None and run.finished_at is not None else None

    result = await until(look, _LOOK_EVERY)
    assert result is not None  # noqa: S101 - the wait has no time limit
    return result


async def result_of(conn: AsyncConnection, run: Run) -> BulkSyncResult:
    """Return the result of a run that has ended."""
    found = await read_issues(conn, run.id, FIRST_ISSUES + 1)
    shown = found[:FIRST_ISSUES]
    issues = [_as_issue(issue) if run.dry_run else _as_handled(issue, run.direction) for issue in shown]
    return BulkSyncResult(await report_of(conn, run), issues, more=len(found) > FIRST_ISSUES)


def _as_handled(found: FoundIssue, direction: Direction) -> dict[str, Any]:
    """Return an issue with the outcome of its heal, in the form of a single sync's result."""
    return _as_issue(found) | {"result": _result(found, direction).as_dict()}


def _result(found: FoundIssue, direction: Direction) -> SyncResult:
    pair = (found.user_id, found.specialization)
    before = Sides(
        found.progress_level,
        found.license_level,
        progress_exists=found.issue_type != "missing_progress",
        license_exists=found.issue_type != "missing_license",
    )
    if found.status == "healed":
        return of_pair(pair, PairResult(before, decide_pair(before, direction, INT4_MAX)))
    message = ": ".join(filter(None, (found.status.replace("_", " "), found.detail)))
    return SyncResult(*pair, PairAction.NONE, message, Why.NOT_HEALED, before, before)


def _as_issue(found: FoundIssue) -> dict[str, Any]:
    return issue_of(found).as_dict() | {"status": found.status}
