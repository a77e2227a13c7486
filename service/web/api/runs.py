"""`GET /runs`, `GET /runs/{id}`, `GET /runs/{id}/issues`, `POST /runs/{id}/cancel`."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends

from service.admin import runs
from service.web.api.backend import Allowed, Caller, Reader
from service.web.api.bodies import make_router
from service.web.api.models import Run, RunIssue
from service.web.api.pages import Page, ShortPage, pair_of, run_of
from service.web.api.problems import documented

router = make_router("runs")


@router.get("/runs", response_model=list[Run], responses=documented())
async def list_runs(caller: Reader, page: Annotated[ShortPage, Depends()]) -> list[dict[str, Any]]:
    """Runs, the newest first."""
    before = runs.NEWEST if page.cursor is None else run_of(page.cursor)
    found = await runs.read_reports(caller.engine, caller.who, page.limit + 1, before)
    if len(found) > page.limit:
        last = found[page.limit - 1]
        page.link_next(last["requested_at"], last["run_id"])
    return found[: page.limit]


@router.get("/runs/{run_id}", response_model=Run, responses=documented(404))
async def read_run(run_id: UUID, caller: Reader) -> dict[str, Any]:
    """One run; `planning` as well while its request is on its way to a worker."""
    return await runs.read_report(caller.engine, caller.who, run_id)


@router.get("/runs/{run_id}/issues", response_model=list[RunIssue], responses=documented(404))
async def read_run_issues(run_id: UUID, caller: Reader, page: Annotated[Page, Depends()]) -> list[dict[str, Any]]:
    """What a run found and what became of it, by user and specialization; a run keeps 1,000 beyond its limit."""
    after = runs.FIRST if page.cursor is None else pair_of(page.cursor)
    found = await runs.read_run_issues(caller.engine, caller.who, run_id, page.limit + 1, after)
    if len(found) > page.limit:
        last = found[page.limit - 1]
        page.link_next(last["user_id"], last["specialization"])
    return found[: page.limit]


@router.post("/runs/{run_id}/cancel", response_model=Run, responses=documented(404))
async def cancel_run(run_id: UUID, caller: Annotated[Caller, Depends(Allowed("cancel_run"))]) -> dict[str, Any]:
    """End a run at once; what it has healed stays healed, and one that has ended is left as it is."""
    return await runs.cancel_run(caller.engine, caller.who, run_id)
