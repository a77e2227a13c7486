"""`GET /desync-issues`, `POST /user/{user_id}`, `POST /user/{user_id}/all`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Depends, Query

from service.admin import drift, syncs
from service.api.backend import Allowed, Caller, Reader
from service.api.models import (
    PairSync,
    SeenIssue,
    SpecializationName,
    SyncAnswer,
    UserSync,
    UserSyncAnswer,
    WholeNumber,
)
from service.api.pages import Page, pair_of
from service.api.problems import documented
from service.api.routers import make_router

router = make_router("sync")
_EMPTY_BODY = UserSync()


@router.get("/desync-issues", response_model=list[SeenIssue], responses=documented())
async def desync_issues(
    caller: Reader,
    page: Annotated[Page, Depends()],
    specialization: Annotated[SpecializationName | None, Query()] = None,
) -> list[dict[str, Any]]:
    """Pairs that differ now, by user and specialization; what is on its way in Kafka differs too."""
    after = drift.START if page.cursor is None else pair_of(page.cursor)
    found = await drift.desync_issues(caller.engine, caller.who, specialization, after, page.limit)
    if found.next:
        page.link_next(*found.next)
    return [issue.as_dict() for issue in found.issues]


@router.post("/user/{user_id}", response_model=SyncAnswer, responses=documented(404, 413, 415))
async def sync_pair(
    user_id: WholeNumber,
    body: PairSync,
    caller: Annotated[Caller, Depends(Allowed("sync_pair"))],
) -> dict[str, Any]:
    """Give one pair's other row the level of the row that is believed, also downwards; create a missing one.

    Where the row to believe is missing, nothing is written: `success` is false and `action` is `none`.
    """
    pair = (user_id, body.specialization)
    result = await syncs.sync_pair(caller.engine, caller.settings, caller.who, pair, body.direction)
    return result.as_dict()


@router.post("/user/{user_id}/all", response_model=UserSyncAnswer, responses=documented(404, 413, 415))
async def sync_user(
    user_id: WholeNumber,
    caller: Annotated[Caller, Depends(Allowed("sync_user"))],
    body: Annotated[UserSync, Body()] = _EMPTY_BODY,
) -> dict[str, Any]:
    """The same for every specialization of the database, each in its own transaction."""
    result = await syncs.sync_user(caller.engine, caller.settings, caller.who, user_id, body.direction)
    return result.as_dict()
