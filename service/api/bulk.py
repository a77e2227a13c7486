"""`POST /all`: a run of everything, waited for."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Depends, Header
from fastapi.responses import JSONResponse

from service.admin import run_requests, runs
from service.admin.run_requests import RunRequest
from service.api.backend import Allowed, Caller
from service.api.middleware import PREFIX
from service.api.models import BulkSync
from service.api.problems import documented
from service.api.routers import make_router
from service.api.run_models import BulkAnswer, DryRunAnswer, RunGoesOn
from service.sync import BulkSyncResult

router = make_router("sync")
_ALL_BODY = BulkSync()
WAIT = 30.0
"""Seconds that a caller waits for the run's end."""
_LOOK_EVERY = 0.25
_NOT_YET = ("success", "total_issues", "issues", "synced_count", "failed_count", "results", "more")
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Where the run can be watched."}}
_ACCEPTED = {"model": RunGoesOn, "description": "The run goes on.", "headers": _LOCATION}
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r'^"?[\x21\x23-\x7e]{1,255}"?$',
        description="Becomes the run's id (a UUID as it is). Again, it is the same run; with another body, 422.",
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
    """Sync everything that differs; a dry run unless the body says `"dry_run": false` in so many words."""
    wanted = RunRequest(body.direction, body.dry_run)
    key = None if idempotency_key is None else idempotency_key.strip('"')
    run_id = await run_requests.request_run(caller.engine, caller.who, wanted, key)
    result = await _wait(caller, run_id, 0 if _at_once(prefer) else WAIT)
    if result is not None:
        return result.as_dict()
    return await _goes_on(caller, run_id, applied=_at_once(prefer))


async def _wait(caller: Caller, run_id: UUID, seconds: float) -> BulkSyncResult | None:
    """The run's result, None where it has not ended in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = await runs.read_result(caller.engine, caller.who, run_id)
        if result is not None:
            return result
        await asyncio.sleep(_LOOK_EVERY)
    return None


async def _goes_on(caller: Caller, run_id: UUID, *, applied: bool) -> JSONResponse:
    where = f"{PREFIX}/runs/{run_id}"
    report = await runs.read_report(caller.engine, caller.who, run_id)
    body = report | dict.fromkeys(_NOT_YET) | {"message": f"The run goes on: watch {where}"}
    headers = {"Location": where} | ({"Preference-Applied": "respond-async"} if applied else {})
    return JSONResponse(body, 202, headers)


def _at_once(prefer: str | None) -> bool:
    return "respond-async" in {part.partition(";")[0].strip().lower() for part in (prefer or "").split(",")}
