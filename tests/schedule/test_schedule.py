"""The schedule on a real PostgreSQL: one request a slot, whoever asks and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Received, read
from service.outbox.publish import HeldBack
from service.outbox.relay import read_batch
from service.process.schedule import Schedule, ask, run_id, schedule_role
from service.settings import Settings
from service.store.tables import outbox, reconcile_runs
from service.telemetry.health import Health
from tests.support.process import LevelsyncProcess

SLOT = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def requests(engine: AsyncEngine) -> list[Received]:
    """Read what waits in the outbox."""
    async with engine.connect() as conn:
        return [read(row.topic, row.value, row.headers, -1) for row in await read_batch(conn, HeldBack())]


async def asked(engine: AsyncEngine, settings: Settings) -> bool:
    async with engine.begin() as conn:
        return await ask(conn, SLOT, settings)


async def test_many_at_once_ask_once(engine: AsyncEngine, settings: Settings) -> None:
    """They look one after the other, and see what the one before has put."""
    answers = await asyncio.gather(*(asked(engine, settings) for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    assert [request.id for request in await requests(engine)] == [str(run_id(SLOT))]


async def test_a_slot_whose_run_is_there_is_not_asked_for(engine: AsyncEngine, settings: Settings) -> None:
    """The request has left the outbox and became a run; the next slot's is asked for."""
    assert await asked(engine, settings)
    async with engine.begin() as conn:
        await conn.execute(delete(outbox))
        await conn.execute(
            insert(reconcile_runs).values(id=run_id(SLOT), direction="highest", dry_run=True, force=False)
        )
    assert not await asked(engine, settings)
    async with engine.begin() as conn:
        assert await ask(conn, SLOT + settings.reconcile_every, settings)


async def test_the_request_says_what_the_settings_say(engine: AsyncEngine, settings: Settings) -> None:
    """A dry run towards the higher level, until somebody changes that."""
    executing = {"reconcile_execute": True, "reconcile_direction": "license_to_progress"}
    async with engine.begin() as conn:
        await ask(conn, SLOT, settings)
        await ask(conn, SLOT + timedelta(hours=6), settings.model_copy(update=executing))
    assert [request.event.model_dump(exclude_none=True) for request in await requests(engine)] == [
        {"direction": "highest", "dry_run": True, "requested_by": "schedule", "force": False},
        {"direction": "license_to_progress", "dry_run": False, "requested_by": "schedule", "force": False},
    ]


async def test_who_starts_in_the_middle_of_a_slot_asks_for_its_run(engine: AsyncEngine, settings: Settings) -> None:
    """And, when asked again in the same slot, does nothing."""
    schedule = Schedule(engine, settings.model_copy(update={"reconcile_every": timedelta(days=36500)}))
    first, second = await schedule.take_slot(), await schedule.take_slot()
    assert 0 < second <= first
    assert len(await requests(engine)) == 1


async def test_switched_off_nobody_asks(engine: AsyncEngine, settings: Settings) -> None:
    """`RECONCILE_EVERY=0` is no slot of no length."""
    health = Health()
    async with schedule_role(engine, settings.model_copy(update={"reconcile_every": timedelta(0)}), health):
        assert await requests(engine) == []
        assert health.ready


async def test_two_processes_ask_for_one_run_a_slot(
    engine: AsyncEngine,
    settings: Settings,
    levelsync_process: Callable[..., LevelsyncProcess],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    """Slot after slot, though both begin them at the same moment."""
    every = timedelta(seconds=1)
    often = Settings(_env_file=None, **settings.model_dump(exclude_unset=True) | {"reconcile_every": every})
    processes = [levelsync_process(often, ("serve", "--roles", "schedule")) for _ in range(2)]
    await asyncio.gather(*(process.start() for process in processes))
    before = len(await requests(engine))

    async def has_gone_on() -> list[Received] | None:
        found = await requests(engine)
        return found if len(found) >= before + 4 else None

    ids = [request.id for request in await eventually(has_gone_on)]
    assert len(set(ids)) == len(ids)
    assert all("ready" in process.output for process in processes)
