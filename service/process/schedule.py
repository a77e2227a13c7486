"""The role `schedule`: it requests one reconcile for each time slot, and removes old rows every hour."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import ReconcileRequested
from service.outbox.put import put
from service.process.removal import Retention
from service.settings import Settings
from service.stream.background import ReportHealthy, in_background
from service.telemetry.health import Health

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMESPACE = uuid.UUID("2d4f3f5c-9c3e-4a39-8d2b-3a0c1b5b8d21")


def slot_at(now: datetime, every: timedelta) -> datetime:
    """Return the time at which the slot of `now` began.

    Slots are counted from 1970 in UTC. Slots of 6 hours begin at 0, 6, 12 and 18 o'clock.
    """
    return _EPOCH + (now - _EPOCH) // every * every


def seconds_to_next(now: datetime, every: timedelta) -> float:
    """Return the seconds until the next slot begins; always above 0."""
    return (slot_at(now, every) + every - now).total_seconds()


def run_id(slot: datetime) -> uuid.UUID:
    """Return the id of a slot's run.

    The id depends only on the time at which the slot begins. During the rollout of a new RECONCILE_EVERY, processes
    have slots of different lengths. Where two such slots begin at the same time, they have the same run.
    """
    return uuid.uuid5(_NAMESPACE, slot.astimezone(UTC).isoformat(timespec="microseconds"))


log = structlog.get_logger(__name__)

_TIME = text("SELECT clock_timestamp()")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('levelsync schedule', 0))")
_IS_REQUESTED = text("""
    SELECT EXISTS (SELECT FROM levelsync.reconcile_runs WHERE id = :id)
        OR EXISTS (SELECT FROM levelsync.outbox WHERE topic = :topic AND key = :key)
""")


async def database_time(conn: AsyncConnection) -> datetime:
    """Return PostgreSQL's time, because all processes share that clock."""
    now: datetime = (await conn.execute(_TIME)).scalar_one()
    return now


async def request_run(conn: AsyncConnection, slot: datetime, settings: Settings) -> bool:
    """Put the slot's ReconcileRequested into the outbox; return False where it was requested before.

    One process at a time checks whether the request is in the outbox or is already a run. While the request is in Kafka
    and no worker has read it, another process may request it again. Both requests have the same id, and a request that
    is delivered twice runs once (law 7). A table of slots would add nothing.
    """
    request = ReconcileRequested(
        id=str(run_id(slot)),
        direction=settings.reconcile_direction,
        dry_run=not settings.reconcile_execute,
        requested_by="schedule",
    )
    await conn.execute(_LOCK)
    # A statement after the lock has a snapshot that includes the commit of the process that had the lock before.
    requested = await conn.execute(_IS_REQUESTED, {"id": UUID(request.id), "topic": request.TOPIC, "key": request.key})
    if requested.scalar_one():
        return False
    await put(conn, [request])
    log.info("periodic reconcile requested", slot=slot.isoformat(), run_id=request.id, dry_run=request.dry_run)
    return True


LONGEST_SLEEP = 60.0
"""Seconds. The schedule notices within this time that the machine was suspended or the database's clock changed."""


@contextlib.asynccontextmanager
async def schedule_role(engine: AsyncEngine, settings: Settings, health: Health) -> AsyncIterator[None]:
    """Run the schedule and the retention in the background. Each reports its faults in `health` and retries."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(in_background(Retention(engine, settings).run, "retention", health))
        if settings.reconcile_every > timedelta(0):
            await stack.enter_async_context(in_background(Schedule(engine, settings).run, "schedule", health))
        else:
            log.info("periodic reconcile is off")
        yield


class Schedule:
    """The schedule of one process."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._seen: datetime | None = None

    async def run(self, report_healthy: ReportHealthy) -> None:
        """Request the run of the current slot and of each slot that begins, until an error or a cancellation.

        A process that starts in the middle of a slot requests that slot's run, unless it was requested before.
        """
        while True:
            seconds = await self.request_present_slot()
            report_healthy()
            await asyncio.sleep(min(seconds, LONGEST_SLEEP))

    async def request_present_slot(self) -> float:
        """Request the run of the current slot unless that was done. Return the seconds until the next slot."""
        every = self._settings.reconcile_every
        async with self._engine.begin() as conn:
            now = await database_time(conn)
            slot = slot_at(now, every)
            if slot != self._seen:
                await request_run(conn, slot, self._settings)
        self._seen = slot
        return seconds_to_next(now, every)
