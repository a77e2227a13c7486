"""The pages of runs: a list, one run, and starting, executing and cancelling a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import UUID

from starlette.responses import Response

from service.admin import runs
from service.admin.cursors import encode
from service.admin.identity import Refused
from service.admin.runs import RunRequest
from service.admin.users import read_specializations
from service.core.names import DIRECTIONS, ISSUE_STATUSES, DriftKind
from service.core.sheet import ISSUE_COLUMNS
from service.reconcile.values import COUNTS, RunReport, healable
from service.web.page.visit import (
    Visit,
    direction_in,
    issue_cursor_in,
    issue_filter_in,
    run_cursor_in,
    user_in,
    wants_csv,
)

PAGE = 20
ISSUES = 50
MAX_EXPORTED = 10_000
"""The maximum number of rows of a CSV file."""
_RUN_COLUMNS = (
    "run_id",
    "status",
    "dry_run",
    "direction",
    "specialization",
    "user_id",
    "requested_by",
    "requested_at",
    "finished_at",
    "would_stop",
)


async def list_runs(visit: Visit) -> Response:
    """Show runs, the newest first, and the form for a new one."""
    if wants_csv(visit.query):
        return _runs_as_csv(visit, await runs.read_reports(visit.engine, visit.who, MAX_EXPORTED))
    found = await runs.read_reports(visit.engine, visit.who, PAGE + 1, run_cursor_in(visit.query))
    shown, more = found[:PAGE], found[PAGE:]
    last = encode(shown[-1].requested_at, shown[-1].run_id) if more else None
    names = await read_specializations(visit.engine)
    first = "before" not in visit.query
    return visit.show("runs.html", runs=shown, older=last, first=first, names=names, directions=DIRECTIONS)


async def start(visit: Visit) -> Response:
    """Request a dry run. It needs no confirmation, because it changes nothing."""
    form = visit.form
    wanted = RunRequest(
        direction=direction_in(form), specialization=form.get("specialization") or None, user_id=user_in(form)
    )
    return visit.redirect(f"/page/runs/{await runs.request_run(visit.engine, visit.who, wanted)}")


async def show_run(visit: Visit) -> Response:
    """Show one run with its progress, its counts and its issues."""
    run_id: UUID = visit.request.path_params["run_id"]
    run = await runs.read_report(visit.engine, visit.who, run_id)
    wanted, after = issue_filter_in(visit.query), issue_cursor_in(visit.query)
    if wants_csv(visit.query):
        found = await runs.read_run_issues(visit.engine, visit.who, run_id, wanted, limit=MAX_EXPORTED)
        rows = ([issue[name] for name in ISSUE_COLUMNS] for issue in map(asdict, found.issues))
        return visit.csv(f"issues-{run_id}", ISSUE_COLUMNS, rows)
    found = await runs.read_run_issues(visit.engine, visit.who, run_id, wanted, limit=ISSUES, after=after)
    return visit.show(
        "run.html",
        run=run,
        elapsed=_elapsed(run),
        changes=would_change(run),
        issues=found.issues,
        wanted=wanted,
        kinds=list(DriftKind),
        statuses=ISSUE_STATUSES,
        following=encode(*found.next) if found.next else None,
        first="after" not in visit.query,
        again=f"{visit.request.url.path}?{visit.request.url.query}".rstrip("?"),
    )


def _runs_as_csv(visit: Visit, found: Sequence[RunReport]) -> Response:
    columns = (*_RUN_COLUMNS, *COUNTS)
    reports = (run.as_dict() for run in found)
    rows = ([*(run[name] for name in _RUN_COLUMNS), *(run["counts"][name] for name in COUNTS)] for run in reports)
    return visit.csv("runs", columns, rows)


async def ask_execute(visit: Visit) -> Response:
    """Show what the run would change and how many pairs, and ask for confirmation."""
    await visit.check("request_run")
    run = await _finished_dry_run(visit)
    return visit.show("execute.html", run=run, changes=would_change(run))


async def execute(visit: Visit) -> Response:
    """Request the real run of a dry run. Repeated requests start one run."""
    await visit.check("request_run")
    run = await _finished_dry_run(visit)
    forced = visit.form.get("force") == "yes"
    wanted = RunRequest(
        direction=run.direction,
        dry_run=False,
        force=forced,
        specialization=run.specialization,
        user_id=run.user_id,
        max_lowered=None if forced else run.counts["lowered"],
    )
    key = f"execute {run.run_id}{' forced' if forced else ''}"
    return visit.redirect(f"/page/runs/{await runs.request_run(visit.engine, visit.who, wanted, key)}")


async def ask_cancel(visit: Visit) -> Response:
    """Show what cancelling means, and ask for confirmation."""
    await visit.check("cancel_run")
    return visit.show("cancel.html", run=await _read(visit))


async def cancel(visit: Visit) -> Response:
    """Cancel the run."""
    run = await runs.cancel_run(visit.engine, visit.who, visit.request.path_params["run_id"])
    return visit.redirect(f"/page/runs/{run.run_id}")


def would_change(run: RunReport) -> int:
    """Return how many pairs the real run of a dry run would write."""
    return healable(run.counts)


async def _read(visit: Visit) -> RunReport:
    return await runs.read_report(visit.engine, visit.who, visit.request.path_params["run_id"])


async def _finished_dry_run(visit: Visit) -> RunReport:
    run = await _read(visit)
    if not run.dry_run or run.status != "completed":
        raise Refused("Only a completed dry run can be executed.")
    return run


def _elapsed(run: RunReport) -> float:
    """Return the seconds from the request to the run's end, or until now."""
    until = run.finished_at or datetime.now(UTC)
    return max((until - run.requested_at).total_seconds(), 0)
