"""The role `schedule`: one request for a reconcile a time slot, and the daily removal."""

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
from service.stream.background import Well, in_background
from service.telemetry.health import Health

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMESPACE = uuid.UUID("2d4f3f5c-9c3e-4a39-8d2b-3a0c1b5b8d21")


def slot_at(now: datetime, every: timedelta) -> datetime:
    """When the slot began that `now` is in.

    Slots are counted from 1970 in UTC: with 6 hours they begin at 0, 6, 12 and 18 o'clock.
    """
    return _EPOCH + (now - _EPOCH) // every * every


def seconds_to_next(now: datetime, every: timedelta) -> float:
    """How long the slot goes on; never 0."""
    return (slot_at(now, every) + every - now).total_seconds()


def run_id(slot: datetime) -> uuid.UUID:
    """The id of a slot's run.

    It knows the slot's beginning only: processes with different lengths of a slot, as while a new setting is rolled
    out, agree on the run at an hour that begins a slot of both.
    """
    return uuid.uuid5(_NAMESPACE, slot.astimezone(UTC).isoformat(timespec="microseconds"))


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


LONGEST_SLEEP = 60.0
"""Seconds: a machine that was suspended, or whose database has another time now, notices within so many."""


@contextlib.asynccontextmanager
async def schedule_role(engine: AsyncEngine, settings: Settings, health: Health) -> AsyncIterator[None]:
    """Run both beside the caller; their faults stand in `health` under their names and are waited out."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(in_background(Retention(engine, settings).run, "retention", health))
        if settings.reconcile_every > timedelta(0):
            await stack.enter_async_context(in_background(Schedule(engine, settings).run, "schedule", health))
        else:
            log.info("no periodic reconcile: it is switched off")
        yield


class Schedule:
    """The schedule of one process."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._seen: datetime | None = None

    async def run(self, well: Well) -> None:
        """Ask for the run of the slot that it is, and of every slot that begins; ends only by an error.

        A process that starts in the middle of a slot asks for that slot's run, where nobody has.
        """
        while True:
            seconds = await self.take_slot()
            well()
            await asyncio.sleep(min(seconds, LONGEST_SLEEP))

    async def take_slot(self) -> float:
        """Ask for the run of the present slot unless that was done; returns the seconds to the next slot."""
        every = self._settings.reconcile_every
        async with self._engine.begin() as conn:
            now = await database_time(conn)
            slot = slot_at(now, every)
            if slot != self._seen:
                await ask(conn, slot, self._settings)
        self._seen = slot
        return seconds_to_next(now, every)
