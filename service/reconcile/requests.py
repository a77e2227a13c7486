"""A request becomes a run's row: once, however often it is delivered (law 7)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from events import Reason, Received, ReconcileRequested
from service.apply.outcomes import DeadLetter
from service.levels import read_curriculum
from service.reconcile import sql
from service.reconcile.values import run_id_of


async def open_runs(conn: AsyncConnection, requests: Sequence[tuple[int, Received]]) -> list[DeadLetter]:
    """Make a run of each request; one for a specialization that there is not becomes a dead letter."""
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
        values = {
            "id": run_id_of(received.id, received.source),
            "direction": request.direction,
            "dry_run": request.dry_run,
            "force": request.force,
            "specialization": canonical,
            "user_id": request.user_id,
            "requested_by": request.requested_by,
        }
        await conn.execute(sql.ADD_RUN, values)
    return letters
