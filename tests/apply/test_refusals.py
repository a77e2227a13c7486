"""How the applier finds the records that PostgreSQL refuses, and what it does with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.progress import Refusals
from service.faults import Fault, InstallationFault, Kind
from service.settings import Settings
from service.store.engine import make_engine
from tests.support.applier import Events, NotApplied, heal, rise
from tests.support.links import Way
from tests.support.tables import add_rows, execute, letters, licenses, position, read, steps, trigger

CHECK = Fault(Kind.RECORD, "23514", "level_is_small", "violates check constraint")
TRIGGER = Fault(Kind.RECORD, "P0001", "", "no")


def test_twenty_users_in_a_row_are_the_installations_fault() -> None:
    """The error contains the SQLSTATE and the constraint."""
    refusals = Refusals()
    for user in range(19):
        refusals.refused(user, CHECK)
    with pytest.raises(InstallationFault, match="23514, constraint level_is_small"):
        refusals.refused(19, CHECK)


def test_one_users_many_records_are_not() -> None:
    refusals = Refusals()
    for _ in range(100):
        refusals.refused(7, CHECK)
    assert refusals.users == {7}


def test_an_accepted_record_or_another_reason_breaks_the_row() -> None:
    refusals = Refusals()
    for user in range(19):
        refusals.refused(user, CHECK)
    refusals.accepted()
    refusals.refused(19, CHECK)
    refusals.refused(20, TRIGGER)
    assert refusals.users == {20}


def test_counting_on_a_copy_leaves_the_original() -> None:
    refusals = Refusals()
    refusals.copy().refused(1, CHECK)
    assert refusals.users == set()


_PRIMARY = (
    "ALTER TABLE user_licenses ADD COLUMN is_primary boolean NOT NULL DEFAULT true",
    "CREATE UNIQUE INDEX one_primary ON user_licenses (user_id) WHERE is_primary",
)
_GOALIE = "INSERT INTO specializations (id, name, max_levels) VALUES ('Goalie', 'Goalie', 8)"
_REFUSED = "refused_by_database"
_SECONDS_TO_WRITE = """
    CREATE FUNCTION seconds_to_write() RETURNS float LANGUAGE plpgsql AS $$
    DECLARE
        began timestamptz := clock_timestamp();
    BEGIN
        UPDATE user_licenses SET instructor_notes = 'seen' WHERE user_id = 3;
        RETURN extract(epoch FROM clock_timestamp() - began);
    END $$
"""


async def test_a_unique_index_of_the_application_refuses_one_record(events: Events, engine: AsyncEngine) -> None:
    await execute(engine, *_PRIMARY)
    await events.apply(rise(1, 3), rise(1, 3, "COACH"), *(rise(user, 2) for user in range(2, 12)))
    assert await licenses(engine) == {(1, "PLAYER"): 3} | {(user, "PLAYER"): 2 for user in range(2, 12)}
    assert await letters(engine) == [(1, _REFUSED)]
    assert await position(engine) == 12


async def test_a_heal_that_a_unique_index_refuses_ends(events: Events, engine: AsyncEngine, settings: Settings) -> None:
    assert events
    await execute(engine, *_PRIMARY)
    await add_rows(engine, progress={(1, "PLAYER"): 3, (1, "COACH"): 3, (2, "PLAYER"): 2})
    report = await heal(engine, settings)
    assert (report["status"], report["counts"]["healed"], report["counts"]["failed"]) == ("completed", 2, 1)
    assert len(await licenses(engine)) == 2


async def test_a_sequence_that_is_behind_is_named_with_its_repair(events: Events, engine: AsyncEngine) -> None:
    """It is a fault of the installation, not of a record."""
    await add_rows(engine, licenses={(user, "PLAYER"): 1 for user in range(1, 31)})
    await execute(engine, "SELECT setval('user_licenses_id_seq', 1)")
    with pytest.raises(NotApplied) as raised:
        await events.apply(rise(40, 3))
    assert raised.value.fault.kind.name == "INSTALLATION"
    assert "user_licenses_id_seq" in raised.value.fault.message
    assert "setval" in raised.value.fault.message


async def test_a_trigger_that_writes_names_in_capitals_stops_nothing(events: Events, engine: AsyncEngine) -> None:
    """The license is the pair's in any case: it is written with its history, or refused without it."""
    await execute(engine, _GOALIE)
    await trigger(engine, "BEFORE INSERT", "NEW.specialization_type := upper(NEW.specialization_type); RETURN NEW;")
    await events.apply(rise(1, 3, "Goalie"), rise(2, 2))
    written = (await licenses(engine), await steps(engine), await letters(engine))
    applied: object = ({(1, "GOALIE"): 3, (2, "PLAYER"): 2}, [(1, "GOALIE", 0, 3), (2, "PLAYER", 0, 2)], [])
    refused: object = ({(2, "PLAYER"): 2}, [(2, "PLAYER", 0, 2)], [(0, _REFUSED)])
    assert written in (applied, refused)


@pytest.fixture
async def far_away(settings: Settings) -> AsyncIterator[tuple[AsyncEngine, Way]]:
    """An engine with 4 ms to PostgreSQL and back, and its link."""
    async with Way(settings.database_url.get_secret_value(), seconds=0.004) as link:
        engine = make_engine(settings.model_copy(update={"database_url": link.url}))
        yield engine, link
        await engine.dispose()


@pytest.mark.parametrize(
    ("records", "seconds"),
    [
        pytest.param(100, 5, id="100"),
        pytest.param(5000, 30, id="5000", marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
async def test_a_batch_with_half_of_its_records_refused_is_bounded(
    events: Events, engine: AsyncEngine, far_away: tuple[AsyncEngine, Way], records: int, seconds: float
) -> None:
    """Nobody waits longer than a second, and 5,000 records take at most 30 s (1.5 round trips a record)."""
    assert events
    await execute(
        engine,
        "INSERT INTO users (id, name, email) SELECT i, i, 'more' || i FROM generate_series(201, 5001) AS i",
        "INSERT INTO user_licenses (user_id, specialization_type, started_at) SELECT id, 'PLAYER', now() FROM users",
    )
    await trigger(engine, "BEFORE UPDATE", "IF NEW.user_id % 2 = 0 THEN RAISE 'even'; END IF; RETURN NEW;")
    await execute(engine, _SECONDS_TO_WRITE)
    behind, link = far_away
    consumer = await Events(behind).begin()
    await consumer.apply(rise(1, 2))
    link.trips = 0
    async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
        batch = tasks.create_task(consumer.apply(*(rise(user, 2) for user in range(2, records + 2))))
        longest = await _longest_wait(engine, batch)
    assert longest < 1
    assert link.trips <= 1.5 * records + 30
    assert len(await letters(engine)) == records / 2
    assert await position(engine) == records + 1


async def _longest_wait(engine: AsyncEngine, batch: asyncio.Task[None]) -> float:
    """Return how long the application waited for one of the licenses at most, measured by PostgreSQL."""
    longest = 0.0
    while not batch.done():
        longest = max(longest, (await read(engine, "SELECT seconds_to_write()"))[0][0])
        await asyncio.sleep(0.01)
    return longest
