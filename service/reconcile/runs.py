"""Read runs and their issues, and end runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from events import ReconcileCompleted
from service.outbox.put import put
from service.reconcile import sql
from service.reconcile.values import (
    COUNTS,
    FAILED_BECAUSE,
    UNCONFIRMED_BY_KIND,
    FoundIssue,
    Phase,
    ReportProgress,
    Run,
    RunPhase,
    RunReport,
    Step,
    Suspect,
    add_labels,
    add_up,
    run_of,
)
from service.settings import Settings
from service.telemetry import metrics

ESTIMATE_AFTER = 1.0
"""Seconds of a step before its time left is estimated, because the first ranges are not representative."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The current step of a run: how long it has lasted, and how much of its work is done.

    The work of a scan is its ranges. The work of a confirmation or a heal is its pairs. The step's beginning and the
    current time are both those of PostgreSQL's clock. The run's row stores the least time left that was estimated in a
    step, so that the reported time left never grows within a step.
    """

    step: Step
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    scanned: int = 0
    least_left: float | None = None
    """The least time left that was estimated in this step. In the step `grace`, the whole grace time."""

    @property
    def phase(self) -> RunPhase | None:
        """The phase of the step, or None when the run has ended."""
        return self.step.phase

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that the step has left, or None when they are unknown. The number never grows."""
        if self.least_left is None:
            return None
        return max(0.0, self.least_left - self.seconds) if self.step is Step.GRACE else self.least_left

    @property
    def pairs_per_second(self) -> float | None:
        """Return the pairs that the step processes each second, or None for a step without pairs."""
        if self.step not in _WORK or not self.seconds:
            return None
        return (self.scanned if self.step is Step.SCAN else self.done) / self.seconds

    def estimate(self) -> float | None:
        """Estimate the seconds left from the work done, or return None when too little is done."""
        if self.step not in _WORK or not self.done or self.seconds < ESTIMATE_AFTER:
            return None
        return self.seconds * (self.total - self.done) / self.done


_WORK = frozenset({Step.SCAN, Step.CONFIRM, Step.HEAL})


async def read_paces(conn: AsyncConnection, runs: Sequence[Run]) -> dict[UUID, Pace]:
    """Read the pace of each run that has not ended."""
    ids = [run.id for run in runs if run.finished_at is None]
    if not ids:
        return {}
    rows = await conn.execute(sql.PACE, {"ids": ids})
    return {r.id: Pace(Step(r.step), r.seconds, r.total - r.open, r.total, r.scanned, r.seconds_left) for r in rows}


async def store_time_left(conn: AsyncConnection, run_id: UUID) -> None:
    """Store the estimate for a run's current step if it is the least so far. Skip the run while its row is locked."""
    for row in await conn.execute(sql.PACE, {"ids": [run_id]}):
        pace = Pace(Step(row.step), row.seconds, row.total - row.open, row.total)
        left = pace.estimate()
        if left is not None and (row.seconds_left is None or left < row.seconds_left):
            await conn.execute(sql.STORE_TIME_LEFT, {"id": run_id, "step": row.step, "left": left})


async def read_run(conn: AsyncConnection, run_id: UUID) -> Run | None:
    """Return a run, or None if there is none with this id."""
    row = (await conn.execute(sql.READ_RUN, {"id": run_id})).one_or_none()
    return None if row is None else run_of(row)


async def find_runs_by_prefix(conn: AsyncConnection, prefix: str) -> list[Run]:
    """Read at most two runs whose id begins with `prefix` (in lower case). Two show that the prefix is ambiguous."""
    return [run_of(row) for row in await conn.execute(sql.FIND_RUNS_BY_PREFIX, {"prefix": prefix})]


async def read_runs(conn: AsyncConnection, limit: int = 20) -> list[Run]:
    """Read runs, the newest first."""
    return [run_of(row) for row in await conn.execute(sql.READ_RUNS, {"limit": limit})]


async def report_of(conn: AsyncConnection, run: Run) -> RunReport:
    """Return a run in the shape of the report. Before its end, it has the counts so far."""
    (report,) = await reports_of(conn, [run])
    return report


async def reports_of(conn: AsyncConnection, runs: Sequence[Run]) -> list[RunReport]:
    """Return the reports of any number of runs, with three queries.

    The counts of a cancelled run are read from its ranges, because a worker may have committed a heal during the
    cancellation.
    """
    progress = await _progress(conn, runs)
    open_or_cancelled = [run.id for run in runs if run.finished_at is None or run.status == "cancelled"]
    so_far = await _counts_so_far(conn, open_or_cancelled)
    paces = await read_paces(conn, runs)
    return [
        _report(run, _with_pace(progress.get(run.id, (0, 0)), paces.get(run.id)), so_far.get(run.id, run.counts))
        for run in runs
    ]


def _with_pace(passes: tuple[int, int], pace: Pace | None) -> ReportProgress:
    """Return the progress of a run: in passes over ranges, and in its current phase."""
    now = pace or Pace(Step.DONE)
    return ReportProgress(
        *passes,
        phase=now.phase,
        seconds_left=None if now.seconds_left is None else round(now.seconds_left, 1),
        pairs_per_second=None if now.pairs_per_second is None else round(now.pairs_per_second, 1),
    )


async def _progress(conn: AsyncConnection, runs: Sequence[Run]) -> dict[UUID, tuple[int, int]]:
    """Return the number of passes over ranges that are done, and of all passes, by run."""
    values = {"ids": [run.id for run in runs], "passes": [Phase.CONFIRM if run.dry_run else Phase.HEAL for run in runs]}
    return {row.run_id: (row.done, row.total) for row in await conn.execute(sql.PROGRESS, values)}


async def _counts_so_far(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    ranges: dict[UUID, list[Mapping[str, int]]] = {run_id: [] for run_id in ids}
    if ids:
        for row in await conn.execute(sql.COUNTS_OF_RUNS, {"ids": ids}):
            ranges[row.run_id].append(row.counts)
    return {run_id: add_up(counts) for run_id, counts in ranges.items()}


def _report(run: Run, progress: ReportProgress, counts: Mapping[str, int]) -> RunReport:
    return RunReport(
        run_id=run.id,
        status=run.status,
        dry_run=run.dry_run,
        direction=run.direction,
        specialization=run.specialization,
        user_id=run.user_id,
        requested_by=run.requested_by,
        requested_at=run.requested_at,
        finished_at=run.finished_at,
        progress=progress,
        counts={name: counts.get(name, 0) for name in COUNTS},
        unconfirmed_by_kind=dict(run.counts.get(UNCONFIRMED_BY_KIND, {})),
        would_stop=run.would_stop,
    )


async def read_issues(
    conn: AsyncConnection,
    run_id: UUID,
    limit: int,
    after: tuple[int, str] = (0, ""),
    *,
    lowered: bool | None = None,
) -> list[FoundIssue]:
    """Return a page of a run's issues in key order, beginning after `after` (user, specialization).

    With `lowered`, return only the issues in which the run lowers a level (True) or lowers none (False).
    """
    values = {"id": run_id, "limit": limit, "user": after[0], "specialization": after[1], "lowered": lowered}
    return [FoundIssue(*row) for row in await conn.execute(sql.READ_ISSUES, values)]


async def lowered_first(conn: AsyncConnection, run_id: UUID, page: int = 1000) -> AsyncGenerator[FoundIssue]:
    """Yield a run's issues: those in which the run lowers a level, then the others, each group in key order."""
    for lowered in (True, False):
        after = (0, "")
        while found := await read_issues(conn, run_id, page, after, lowered=lowered):
            for issue in found:
                yield issue
            after = (found[-1].user_id, found[-1].specialization)


SAMPLES = 1000
"""Issues that are stored beyond the breaker's limit."""


@dataclass(frozen=True, slots=True)
class ReconcileIssue:
    """A suspect, its outcome, and the server's message if it was refused."""

    suspect: Suspect
    status: str
    detail: str = ""


def breaker_limit(settings: Settings, pairs: int) -> int:
    """Return how many pairs a run may change without being forced: ``max(share of the pairs, a number)``."""
    return max(int(pairs * settings.reconcile_breaker_share), settings.reconcile_breaker_pairs)


async def room_for_issues(conn: AsyncConnection, run_id: UUID, settings: Settings) -> int:
    """Return how many more issues a run stores. Concurrent workers may each store so many, which exceeds the limit."""
    run = (await conn.execute(sql.SCANNED_AND_KEPT, {"id": run_id})).one()
    return max(0, breaker_limit(settings, int(run.scanned)) + SAMPLES - int(run.kept))


async def add_issues(conn: AsyncConnection, run_id: UUID, issues: Sequence[ReconcileIssue]) -> None:
    """Store issues of a run."""
    if issues:
        suspects = [issue.suspect for issue in issues]
        values = {
            "statuses": [issue.status for issue in issues],
            "details": [issue.detail for issue in issues],
            "kinds": [suspect.kind for suspect in suspects],
            "progress": [suspect.progress_level for suspect in suspects],
            "licenses": [suspect.license_level for suspect in suspects],
        }
        await conn.execute(sql.ADD_ISSUES, _pairs(run_id, suspects) | values)


async def set_statuses(conn: AsyncConnection, run_id: UUID, issues: Sequence[ReconcileIssue]) -> None:
    """Set the status of the issues that are stored, with one statement for each status and detail."""
    by_status: defaultdict[tuple[str, str], list[Suspect]] = defaultdict(list)
    for issue in issues:
        by_status[issue.status, issue.detail].append(issue.suspect)
    for (status, detail), suspects in by_status.items():
        await conn.execute(sql.SET_ISSUES, _pairs(run_id, suspects) | {"status": status, "detail": detail})


def _pairs(run_id: UUID, suspects: Sequence[Suspect]) -> dict[str, Any]:
    return {
        "id": run_id,
        "users": [suspect.user_id for suspect in suspects],
        "specializations": [suspect.specialization for suspect in suspects],
    }


log = structlog.get_logger(__name__)


async def finish(conn: AsyncConnection, run: Run, status: str, detail: str = "", **more: Any) -> None:
    """End the run whose row the caller has locked, and publish its report through the outbox."""
    ranges = list((await conn.execute(sql.RANGE_COUNTS, {"id": run.id})).scalars())
    counts: dict[str, Any] = add_up(ranges) | more
    found, gone = ([one.get(name, ()) for one in ranges] for name in ("found_by", "gone_by"))
    counts["left_by"] = add_labels(found, less=gone)
    reasons = [one[FAILED_BECAUSE] for one in ranges if FAILED_BECAUSE in one]
    reason = detail or "; ".join(reasons[:1])
    values = {"id": run.id, "status": status, "detail": reason, "counts": json.dumps(counts)}
    row = (await conn.execute(sql.FINISH_RUN, values)).one_or_none()
    if row is None:
        return
    report = await report_of(conn, run_of(row))
    await put(conn, [ReconcileCompleted.model_validate(report.as_dict(), strict=False)])
    metrics.RECONCILE_RUNS.labels(status).inc()
    log.info("reconcile ended", run_id=str(run.id), status=status, dry_run=run.dry_run, **report.counts)


async def finish_unconfirmed(conn: AsyncConnection, run: Run, settings: Settings) -> None:
    """End a run with all suspects unconfirmed, because the appliers did not catch up in time (law 5)."""
    rows = (await conn.execute(sql.ALL_SUSPECTS, {"id": run.id, "most": breaker_limit(settings, 0)})).scalars()
    await add_issues(conn, run.id, [ReconcileIssue(Suspect(*array), "unconfirmed") for array in rows])
    kinds = {row.kind: row.number for row in await conn.execute(sql.SUSPECT_KINDS, {"id": run.id})}
    seen = {"unconfirmed": sum(kinds.values()), UNCONFIRMED_BY_KIND: kinds}
    await finish(conn, run, "completed", "the appliers did not catch up in time", **seen)


async def cancel_run(conn: AsyncConnection, run_id: UUID) -> bool:
    """End a run in any step. What it has healed stays healed. Return False when it had ended already."""
    row = (await conn.execute(sql.LOCK_RUN, {"id": run_id})).one_or_none()
    if row is None or row.finished_at is not None:
        return False
    await finish(conn, run_of(row), "cancelled", "cancelled on request")
    return True
