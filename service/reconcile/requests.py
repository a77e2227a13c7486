"""A request becomes a run's row: once, however often it is delivered (law 7)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from events import Reason, Received, ReconcileRequested
from service.apply.outcomes import DeadLetter
from service.levels import read_curriculum
from service.reconcile import sql
from service.reconcile.finish import finish
from service.reconcile.values import KEPT, run_id_of, run_of


async def open_runs(conn: AsyncConnection, requests: Sequence[tuple[int, Received]]) -> list[DeadLetter]:
    """Open a run for each request, once; a request for an unknown specialization becomes a dead letter.

    A request from before the oldest run that is kept may have had its run already: it is answered `expired`.
    """
    curriculum = await read_curriculum(conn)
    letters: list[DeadLetter] = []
    for index, received in requests:
        request = received.event
        assert isinstance(request, ReconcileRequested)  # noqa: S101 - the topic has one type, which `read` checked
        canonical = None if request.specialization is None else curriculum.canonical(request.specialization)
        if request.specialization is not None and canonical is None:
            detail = f"there is no specialization {request.specialization!r}"
            letters.append(DeadLetter(index, Reason.UNKNOWN_SPECIALIZATION, detail))
            continue
        values: dict[str, Any] = {
            "id": run_id_of(received.id, received.source),
            "direction": request.direction,
            "dry_run": request.dry_run,
            "force": request.force,
            "specialization": canonical,
            "user_id": request.user_id,
            "max_lowered": request.max_lowered,
            "requested_by": request.requested_by,
        }
        added = (await conn.execute(sql.ADD_RUN, values)).one_or_none()
        if added is None:
            continue
        await _leave_row(conn, values, received)
        if await _has_expired(conn, received):
            why = f"asked for on {received.occurred_at:%Y-%m-%d}: runs are kept for {KEPT.days} days only"
            await finish(conn, run_of(added), "expired", why)
    return letters


async def _has_expired(conn: AsyncConnection, received: Received) -> bool:
    values = {"occurred_at": received.occurred_at, "kept": KEPT}
    return bool((await conn.execute(sql.HAS_EXPIRED, values)).scalar_one())


async def _leave_row(conn: AsyncConnection, run: dict[str, Any], received: Received) -> None:
    """Leave a row of the audit log for a request by event; the API's and the page's have left theirs already."""
    arguments = {name: value for name, value in run.items() if name not in {"id", "requested_by"}}
    values = {
        "subject": run["requested_by"] or received.source,
        "arguments": json.dumps(arguments | {"run_id": str(run["id"])}),
        "detail": f"event {received.id} from {received.source}",
        "run_id": str(run["id"]),
    }
    await conn.execute(sql.RECORD_REQUEST, values)
