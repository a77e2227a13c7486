"""The end of a run, once: its counts, its status, and the report on its way to Kafka."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from events import ReconcileCompleted
from service import metrics
from service.outbox.put import put
from service.reconcile import sql
from service.reconcile.issues import Issue, breaker_limit, keep
from service.reconcile.read import report_of
from service.reconcile.values import FAILED_BECAUSE, UNCONFIRMED_BY_KIND, Run, Suspect, add_labels, add_up, run_of
from service.settings import Settings

log = structlog.get_logger(__name__)


async def finish(conn: AsyncConnection, run: Run, status: str, detail: str = "", **more: Any) -> None:
    """Close the run whose row the caller holds; the report leaves through the outbox."""
    ranges = list((await conn.execute(sql.RANGE_COUNTS, {"id": run.id})).scalars())
    counts: dict[str, Any] = add_up(ranges) | more
    found, gone = ([one.get(name, ()) for one in ranges] for name in ("found_by", "gone_by"))
    counts["left_by"] = add_labels(found, less=gone)
    reasons = [one[FAILED_BECAUSE] for one in ranges if FAILED_BECAUSE in one]
    told = detail or "; ".join(reasons[:1])
    values = {"id": run.id, "status": status, "detail": told, "counts": json.dumps(counts)}
    row = (await conn.execute(sql.FINISH_RUN, values)).one_or_none()
    if row is None:
        return
    report = await report_of(conn, run_of(row))
    await put(conn, [ReconcileCompleted.model_validate(report, strict=False)])
    metrics.RECONCILE_RUNS.labels(status).inc()
    log.info("reconcile ended", run_id=str(run.id), status=status, dry_run=run.dry_run, **report["counts"])


async def unconfirmed_is_all(conn: AsyncConnection, run: Run, settings: Settings) -> None:
    """The appliers did not catch up in time: nothing is confirmed, nothing is healed (law 5)."""
    rows = (await conn.execute(sql.ALL_SUSPECTS, {"id": run.id, "most": breaker_limit(settings, 0)})).scalars()
    await keep(conn, run.id, [Issue(Suspect(*array), "unconfirmed") for array in rows])
    kinds = {row.kind: row.number for row in await conn.execute(sql.SUSPECT_KINDS, {"id": run.id})}
    seen = {"unconfirmed": sum(kinds.values()), UNCONFIRMED_BY_KIND: kinds}
    await finish(conn, run, "completed", "the appliers did not catch up in time", **seen)


async def cancel_run(conn: AsyncConnection, run_id: UUID) -> bool:
    """End a run at once, whatever its step; what it has healed stays healed. False where it had ended already."""
    row = (await conn.execute(sql.LOCK_RUN, {"id": run_id})).one_or_none()
    if row is None or row.finished_at is not None:
        return False
    await finish(conn, run_of(row), "cancelled", "cancelled on request")
    return True
