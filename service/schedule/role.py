"""The role `schedule`: asks for a reconcile at the beginning of each time slot, and removes what is old."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.background import Well, in_background
from service.health import Health
from service.retention import Retention
from service.schedule.ask import ask, database_time
from service.schedule.slots import seconds_to_next, slot_at
from service.settings import Settings

log = structlog.get_logger(__name__)
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
