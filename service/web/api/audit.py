"""`GET /audit`: who requested what, and with which outcome."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from service.admin import audit
from service.admin.audit import ActionFilter
from service.admin.cursors import action_of
from service.web.api.backend import Allowed, Caller
from service.web.api.bodies import make_router
from service.web.api.dead_letter_models import Moment
from service.web.api.pages import AS_CSV, Page
from service.web.api.problems import documented

router = make_router("audit")
Name = Annotated[str, Query(min_length=1, max_length=300, pattern=r"^[^\u0000]+$")]


class AuditRow(BaseModel):
    """A row of the audit log: a write, a refusal, or failed sign-ins."""

    id: int
    at: datetime
    subject: str = Field(description="The token's subject; for a command, the account at the terminal.", examples=["1"])
    role: str = Field(description="The token's role, `shell` for a command, or `event` for a published request.")
    action: str = Field(examples=["request_run"])
    arguments: dict[str, Any]
    outcome: Literal["done", "refused", "failed"]
    detail: str
    times: int = Field(description="Above 1 where one row counts the failed sign-ins of a minute.")
    client_address: str
    request_id: str


def _filter(
    since: Annotated[Moment | None, Query(description="Rows of this time or later.")] = None,
    subject: Name | None = None,
    action: Name | None = None,
    outcome: Annotated[Literal["done", "refused", "failed"] | None, Query()] = None,
) -> ActionFilter:
    return ActionFilter(since, subject, action, outcome)


@router.get("/audit", response_model=list[AuditRow], responses=AS_CSV | documented())
async def read_audit(
    caller: Annotated[Caller, Depends(Allowed("read_audit"))],
    page: Annotated[Page, Depends()],
    wanted: Annotated[ActionFilter, Depends(_filter)],
) -> list[dict[str, Any]]:
    """Return the audit log, the newest row first: every write, every refusal, and failed sign-ins."""
    before = audit.NEWEST_ACTION if page.cursor is None else action_of(page.cursor)
    found = await audit.list_actions(caller.engine, caller.who, wanted, limit=page.limit + 1, before=before)
    if len(found) > page.limit:
        last = found[page.limit - 1]
        page.link_next(last.at, last.id)
    return [asdict(action) for action in found[: page.limit]]
