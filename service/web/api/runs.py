"""`GET /runs`, `GET /runs/{id}`, `GET /runs/{id}/issues`, `POST /runs/{id}/cancel`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, Query

from service.admin import runs
from service.admin.cursors import place_of, run_of
from service.admin.runs import IssueFilter, IssueOrder
from service.core.names import DriftKind, IssueStatus
from service.reconcile.values import FoundIssue, RunReport
from service.web.api.backend import Allowed, Caller, Reader
from service.web.api.bodies import make_router
from service.web.api.models import Run, RunIssue, SpecializationName
from service.web.api.pages import AS_CSV, Page, ShortPage
from service.web.api.problems import documented

router = make_router("runs")


@router.get("/runs", response_model=list[Run], responses=AS_CSV | documented())
async def list_runs(caller: Reader, page: Annotated[ShortPage, Depends()]) -> list[RunReport]:
    """Return runs, the newest first."""
    before = runs.NEWEST if page.cursor is None else run_of(page.cursor)
    found = await runs.read_reports(caller.engine, caller.who, page.limit + 1, before)
    if len(found) > page.limit:
        last = found[page.limit - 1]
        page.link_next(last.requested_at, last.run_id)
    return found[: page.limit]


@router.get("/runs/{run_id}", response_model=Run, responses=documented(404))
async def read_run(run_id: UUID, caller: Reader) -> RunReport:
    """Return one run. Its status is `planning` also while no worker has read its request yet."""
    return await runs.read_report(caller.engine, caller.who, run_id)


def _issue_filter(
    sort: Annotated[
        IssueOrder, Query(description="`lowered`: pairs with a falling level first; `difference`: the largest first.")
    ] = "lowered",
    kind: Annotated[DriftKind | None, Query()] = None,
    status: Annotated[IssueStatus | None, Query()] = None,
    specialization: Annotated[SpecializationName | None, Query()] = None,
    lowered: Annotated[Literal["true"] | None, Query(description="Only pairs whose level the run lowers.")] = None,
) -> IssueFilter:
    return IssueFilter(sort, kind, status, specialization, falling=lowered is not None)


@router.get("/runs/{run_id}/issues", response_model=list[RunIssue], responses=AS_CSV | documented(404))
async def read_run_issues(
    run_id: UUID,
    caller: Reader,
    page: Annotated[Page, Depends()],
    wanted: Annotated[IssueFilter, Depends(_issue_filter)],
) -> list[FoundIssue]:
    """Return the pairs that a run found to differ, with their outcome.

    By default, pairs with a falling level come first, and equal ones are sorted by user and specialization. A run keeps
    its issues up to the breaker's limit, and 1,000 beyond it.
    """
    after = runs.FIRST if page.cursor is None else place_of(page.cursor)
    found = await runs.read_run_issues(caller.engine, caller.who, run_id, wanted, limit=page.limit, after=after)
    if found.next:
        page.link_next(*found.next)
    return found.issues


@router.post("/runs/{run_id}/cancel", response_model=Run, responses=documented(404))
async def cancel_run(run_id: UUID, caller: Annotated[Caller, Depends(Allowed("cancel_run"))]) -> RunReport:
    """Cancel a run at once. Pairs that it has healed stay healed. A run that has ended does not change."""
    return await runs.cancel_run(caller.engine, caller.who, run_id)
