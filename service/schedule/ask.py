"""Asks for the run of one slot, once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from events import ReconcileRequested
from service.outbox.put import put
from service.schedule.slots import run_id
from service.settings import Settings

log = structlog.get_logger(__name__)

_TIME = text("SELECT clock_timestamp()")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('levelsync schedule', 0))")
_ASKED = text("""
    SELECT EXISTS (SELECT FROM levelsync.reconcile_runs WHERE id = :id)
        OR EXISTS (SELECT FROM levelsync.outbox WHERE topic = :topic AND key = :key)
""")


async def database_time(conn: AsyncConnection) -> datetime:
    """What time it is in PostgreSQL: one clock for all processes."""
    now: datetime = (await conn.execute(_TIME)).scalar_one()
    return now


async def ask(conn: AsyncConnection, slot: datetime, settings: Settings) -> bool:
    """Put the slot's ReconcileRequested into the outbox; False where somebody did before.

    One process after the other looks whether the request waits in the outbox, or is a run already. In the moment
    between, when it is in Kafka and no worker has read it, one may ask again: the id is the same, and a request that
    is delivered twice runs once (law 7). A table of slots would do no more.
    """
    request = ReconcileRequested(
        id=str(run_id(slot)),
        direction=settings.reconcile_direction,
        dry_run=not settings.reconcile_execute,
        requested_by="schedule",
    )
    await conn.execute(_LOCK)
    # In a statement after the lock: its snapshot is then younger than the commit of whoever had the lock before.
    asked = await conn.execute(_ASKED, {"id": UUID(request.id), "topic": request.TOPIC, "key": request.key})
    if asked.scalar_one():
        return False
    await put(conn, [request])
    log.info("asked for the periodic reconcile", slot=slot.isoformat(), run_id=request.id, dry_run=request.dry_run)
    return True
