"""`auto_sync_all`: a reconcile run, asked for and waited for (R18): the same confirmation, the same breaker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction, ReconcileRequested
from service.outbox.put import put
from service.reconcile.read import read_issues, read_run, report_of
from service.reconcile.values import Run, healable
from service.sync.issues import issue_of

FIRST_ISSUES = 100
"""Issues that a result carries; the rest is read from the run, page by page."""
_LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class BulkSyncResult:
    """A run that has ended: its report in the fixed shape, and its first issues with what became of them."""

    report: dict[str, Any]
    issues: list[dict[str, Any]]

    @property
    def success(self) -> bool:
        """Whether the run completed and no heal failed."""
        return self.report["status"] == "completed" and not self.report["counts"]["failed"]

    @property
    def message(self) -> str:
        """What happened, in words."""
        counts, status = self.report["counts"], self.report["status"].replace("_", " ")
        if counts["unconfirmed"]:
            number = counts["unconfirmed"]
            return f"Run {status}: nothing is confirmed, because the appliers did not catch up; {number} pairs differ"
        if self.report["dry_run"]:
            return f"Dry run {status}: {self._total()} pairs would be synced"
        return f"Run {status}: {counts['healed']} of {self._total()} pairs synced, {counts['failed']} failed"

    def as_dict(self) -> dict[str, Any]:
        """As clients read it (R31)."""
        shared = {"success": self.success, "dry_run": self.report["dry_run"], "total_issues": self._total()}
        named = {"message": self.message, "run_id": self.report["run_id"]}
        if self.report["dry_run"]:
            return shared | {"issues": self.issues} | named
        counts = self.report["counts"]
        done = {"synced_count": counts["healed"], "failed_count": counts["failed"], "results": self.issues}
        return shared | done | named

    def _total(self) -> int:
        return healable(self.report["counts"])


async def sync_all(engine: AsyncEngine, direction: Direction, *, dry_run: bool) -> BulkSyncResult:
    """Ask for a run of everything and wait for its end, however long it takes; the roles reconcile and relay do it."""
    request = ReconcileRequested(direction=direction, dry_run=dry_run, requested_by="auto_sync_all")
    async with engine.begin() as conn:
        await put(conn, [request])
    run_id = UUID(request.id)
    while True:
        async with engine.connect() as conn:
            run = await read_run(conn, run_id)
            if run is not None and run.finished_at is not None:
                return await result_of(conn, run)
        await asyncio.sleep(_LOOK_EVERY)


async def result_of(conn: AsyncConnection, run: Run) -> BulkSyncResult:
    """The result of a run that has ended."""
    found = await read_issues(conn, run.id, FIRST_ISSUES)
    return BulkSyncResult(await report_of(conn, run), [_as_issue(issue) for issue in found])


def _as_issue(found: dict[str, Any]) -> dict[str, Any]:
    return issue_of(SimpleNamespace(**found)).as_dict() | {"status": found["status"]}
