"""The schedule requests one reconcile for each time slot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Received, read
from service.outbox.relay import HeldBack, read_batch
from service.process.schedule import Schedule, request_run, run_id, schedule_role, seconds_to_next, slot_at
from service.settings import Settings
from service.store.tables import outbox, reconcile_runs
from service.telemetry.health import Health
from tests.support.process import Make
from tests.support.waiting import eventually

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy gives it a zone
LENGTHS = st.timedeltas(timedelta(milliseconds=1), timedelta(days=30))


@given(TIMES, LENGTHS)
def test_a_time_is_in_exactly_one_slot(now: datetime, every: timedelta) -> None:
    slot = slot_at(now, every)
    assert slot <= now < slot + every
    assert slot_at(slot, every) == slot
    assert slot_at(slot + every, every) == slot + every
    assert now + timedelta(seconds=seconds_to_next(now, every)) == slot + every


def test_slots_of_six_hours_begin_at_round_hours() -> None:
    """Slots are counted in UTC, whatever zone the time is given in."""
    six = timedelta(hours=6)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert slot_at(noon + timedelta(hours=5, minutes=59), six) == noon
    assert slot_at(noon - timedelta(microseconds=1), six) == noon - six
    assert slot_at(datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2))), six) == noon


@given(TIMES, LENGTHS, st.floats(0, 0.999))
def test_any_two_processes_name_a_slot_s_run_alike(now: datetime, every: timedelta, part: float) -> None:
    slot = slot_at(now, every)
    assert run_id(slot_at(slot + every * part, every)) == run_id(slot)
    assert run_id(slot + every) != run_id(slot)


def test_lengths_that_share_a_beginning_share_its_run() -> None:
    """During a rollout of a new length, noon is not requested twice."""
    now = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert run_id(slot_at(now, timedelta(hours=6))) == run_id(slot_at(now, timedelta(hours=1)))


SLOT = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def requests(engine: AsyncEngine) -> list[Received]:
    """Return the requests in the outbox."""
    async with engine.connect() as conn:
        return [read(row.topic, row.value, row.headers, -1) for row in await read_batch(conn, HeldBack())]


async def asked(engine: AsyncEngine, settings: Settings) -> bool:
    async with engine.begin() as conn:
        return await request_run(conn, SLOT, settings)


async def test_many_at_once_ask_once(engine: AsyncEngine, settings: Settings) -> None:
    answers = await asyncio.gather(*(asked(engine, settings) for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    assert [request.id for request in await requests(engine)] == [str(run_id(SLOT))]


async def test_a_slot_whose_run_is_there_is_not_asked_for(engine: AsyncEngine, settings: Settings) -> None:
    """The request has left the outbox and became a run. The next slot's run is requested."""
    assert await asked(engine, settings)
    async with engine.begin() as conn:
        await conn.execute(delete(outbox))
        run = insert(reconcile_runs).values(id=run_id(SLOT), direction="highest", dry_run=True, force=False)
        await conn.execute(run)
    assert not await asked(engine, settings)
    async with engine.begin() as conn:
        assert await request_run(conn, SLOT + settings.reconcile_every, settings)


async def test_the_request_says_what_the_settings_say(engine: AsyncEngine, settings: Settings) -> None:
    executing = {"reconcile_execute": True, "reconcile_direction": "license_to_progress"}
    async with engine.begin() as conn:
        await request_run(conn, SLOT, settings)
        await request_run(conn, SLOT + timedelta(hours=6), settings.model_copy(update=executing))
    assert [request.event.model_dump(exclude_none=True) for request in await requests(engine)] == [
        {"direction": "highest", "dry_run": True, "requested_by": "schedule", "force": False},
        {"direction": "license_to_progress", "dry_run": False, "requested_by": "schedule", "force": False},
    ]


async def test_who_starts_in_the_middle_of_a_slot_asks_for_its_run(engine: AsyncEngine, settings: Settings) -> None:
    schedule = Schedule(engine, settings.model_copy(update={"reconcile_every": timedelta(days=36500)}))
    first, second = await schedule.request_present_slot(), await schedule.request_present_slot()
    assert 0 < second <= first
    assert len(await requests(engine)) == 1


async def test_switched_off_nobody_asks(engine: AsyncEngine, settings: Settings) -> None:
    health = Health()
    async with schedule_role(engine, settings.model_copy(update={"reconcile_every": timedelta(0)}), health):
        assert await requests(engine) == []
        assert health.ready


@pytest.mark.usefixtures("topics")
async def test_two_processes_ask_for_one_run_a_slot(
    engine: AsyncEngine, settings: Settings, levelsync_process: Make
) -> None:
    every = timedelta(seconds=1)
    often = Settings(_env_file=None, **settings.model_dump(exclude_unset=True) | {"reconcile_every": every})
    processes = [levelsync_process(often, ("serve", "--roles", "schedule")) for _ in range(2)]
    await asyncio.gather(*(process.start() for process in processes))
    before = len(await requests(engine))

    async def has_gone_on() -> list[Received]:
        found = await requests(engine)
        return found if len(found) >= before + 4 else []

    ids = [request.id for request in await eventually(has_gone_on)]
    assert len(set(ids)) == len(ids)
    assert all("ready" in process.output for process in processes)
