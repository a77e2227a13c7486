"""The endpoints of syncs: one user, one pair, all."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Depends, Header, Query
from fastapi.responses import JSONResponse

from service.admin import pairs, runs, users
from service.admin.cursors import pair_of
from service.admin.runs import RunRequest
from service.stream.background import until
from service.sync import BulkSyncResult
from service.web.api.backend import Allowed, Caller, Reader
from service.web.api.bodies import make_router
from service.web.api.models import (
    BulkAnswer,
    BulkSync,
    DryRunAnswer,
    PairSync,
    RunInProgress,
    SeenIssue,
    SpecializationName,
    SyncAnswer,
    UserSync,
    UserSyncAnswer,
    WholeNumber,
)
from service.web.api.pages import AS_CSV, Page
from service.web.api.problems import PREFIX, documented

router = make_router("sync")
_EMPTY_BODY = UserSync()


@router.get("/desync-issues", response_model=list[SeenIssue], responses=AS_CSV | documented())
async def desync_issues(
    caller: Reader,
    page: Annotated[Page, Depends()],
    specialization: Annotated[SpecializationName | None, Query()] = None,
) -> list[dict[str, Any]]:
    """Return the pairs that differ now, by user and specialization.

    A pair also differs while its event is not applied yet.
    """
    after = pairs.START if page.cursor is None else pair_of(page.cursor)
    found = await pairs.desync_issues(caller.engine, caller.who, specialization, after, page.limit)
    if found.next:
        page.link_next(*found.next)
    return [issue.as_dict() for issue in found.issues]


@router.post("/user/{user_id}", response_model=SyncAnswer, responses=documented(404, 413, 415))
async def sync_pair(
    user_id: WholeNumber,
    body: PairSync,
    caller: Annotated[Caller, Depends(Allowed("sync_pair"))],
) -> dict[str, Any]:
    """Sync one pair: set both rows to the level of the row that the direction believes, which may lower a level.

    `highest` believes the higher level. The row that is not believed is created where it is missing. Where the believed
    row is missing, nothing is written, `success` is false and `action` is `none`.
    """
    pair = (user_id, body.specialization)
    result = await users.sync_pair(caller.engine, caller.settings, caller.who, pair, body.direction)
    return result.as_dict()


@router.post("/user/{user_id}/all", response_model=UserSyncAnswer, responses=documented(404, 413, 415))
async def sync_user(
    user_id: WholeNumber,
    caller: Annotated[Caller, Depends(Allowed("sync_user"))],
    body: Annotated[UserSync, Body()] = _EMPTY_BODY,
) -> dict[str, Any]:
    """Sync every specialization of the database for one user, each in its own transaction."""
    result = await users.sync_user(caller.engine, caller.settings, caller.who, user_id, body.direction)
    return result.as_dict()


_ALL_BODY = BulkSync()
WAIT = 30.0
"""Seconds that the endpoint waits for the run's end."""
_LOOK_EVERY = 0.25
_NOT_YET = ("success", "total_issues", "issues", "synced_count", "failed_count", "results", "more")
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "The path of the run."}}
_ACCEPTED = {"model": RunInProgress, "description": "The run has not ended yet.", "headers": _LOCATION}
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r'^"?[\x21\x23-\x7e]{1,255}"?$',
        description="A UUID becomes the run's id; the id of other text is derived from it. The same key again returns "
        "the same run; with another body, 422.",
    ),
]
Prefer = Annotated[str | None, Header(description="`respond-async`: answer 202 at once.", max_length=500)]


@router.post("/all", response_model=DryRunAnswer | BulkAnswer, responses={**documented(413, 415), 202: _ACCEPTED})
async def sync_all(
    caller: Annotated[Caller, Depends(Allowed("request_run"))],
    body: Annotated[BulkSync, Body()] = _ALL_BODY,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Any:
    """Sync every pair that differs, through a run. It is a dry run unless the body has `"dry_run": false`."""
    wanted = RunRequest(body.direction, body.dry_run)
    key = None if idempotency_key is None else idempotency_key.strip('"')
    run_id = await runs.request_run(caller.engine, caller.who, wanted, key)
    result = await _wait(caller, run_id, 0 if _at_once(prefer) else WAIT)
    if result is not None:
        return result.as_dict()
    return await _not_ended(caller, run_id, applied=_at_once(prefer))


async def _wait(caller: Caller, run_id: UUID, seconds: float) -> BulkSyncResult | None:
    """Return the run's result; None where the run has not ended in time."""
    return await until(lambda: runs.read_result(caller.engine, caller.who, run_id), _LOOK_EVERY, seconds)


async def _not_ended(caller: Caller, run_id: UUID, *, applied: bool) -> JSONResponse:
    where = f"{PREFIX}/runs/{run_id}"
    report = await runs.read_report(caller.engine, caller.who, run_id)
    body = report.as_dict() | dict.fromkeys(_NOT_YET) | {"message": f"The run has not ended yet. Watch {where}"}
    headers = {"Location": where} | ({"Preference-Applied": "respond-async"} if applied else {})
    return JSONResponse(body, 202, headers)


def _at_once(prefer: str | None) -> bool:
    return "respond-async" in {part.partition(";")[0].strip().lower() for part in (prefer or "").split(",")}
