"""How the applier finds the records that PostgreSQL refuses, and what it does with them."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.batch import Applied
from service.apply.progress import Refusals
from service.faults import Fault, InstallationFault, Kind
from tests.support.applier import Events, NotApplied, Partitions, one, rise
from tests.support.interference import Setup
from tests.support.model import LEVELED_UP
from tests.support.tables import add_rows, empty_tables, execute, letters, licenses, position, read, steps, trigger

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


_USERS = range(1, 31)


@pytest.fixture
async def refused(engine: AsyncEngine, partitions: Partitions) -> Partitions:
    """Two consumers whose database has refused thirty users, until it is repaired."""
    await execute(engine, "ALTER TABLE user_licenses ADD CONSTRAINT nobody CHECK (current_level < 0)")
    with pytest.raises(InstallationFault, match="20 users in a row"):
        await apply_again(partitions)
    assert await letters(engine) == []
    return partitions


async def apply_again(partitions: Partitions) -> Applied:
    partitions.ends[LEVELED_UP] = 0
    return await partitions.apply(LEVELED_UP, partitions.records([one(user=user, minutes=user) for user in _USERS]))


async def test_refusals_of_twenty_users_never_become_dead_letters(engine: AsyncEngine, refused: Partitions) -> None:
    """The attempt during which it is repaired is given up. The next attempt applies everything."""
    await execute(engine, "ALTER TABLE user_licenses DROP CONSTRAINT nobody", "CREATE SEQUENCE refused")
    refuse = "IF nextval('refused') <= 4 THEN RAISE 'nobody'; END IF; RETURN NEW;"
    await trigger(engine, "BEFORE INSERT", refuse)  # the batch as a whole, then three of its records
    with pytest.raises(InstallationFault, match="fewer records than in the last attempt"):
        await apply_again(refused)
    applied = await apply_again(refused)
    assert not applied.letters
    assert await licenses(engine) == {(user, "PLAYER"): 3 for user in _USERS}


async def test_a_record_refused_after_the_repair_stands_alone(engine: AsyncEngine, refused: Partitions) -> None:
    await execute(engine, "ALTER TABLE user_licenses DROP CONSTRAINT nobody, ADD CONSTRAINT six CHECK (user_id <> 6)")
    with pytest.raises(InstallationFault, match="fewer records than in the last attempt"):
        await apply_again(refused)
    applied = await apply_again(refused)
    assert [letter.index for letter in applied.letters] == [5]
    assert len(await licenses(engine)) == len(_USERS) - 1


@pytest.mark.parametrize(
    ("records", "seconds"),
    [
        pytest.param(100, 5, id="100"),
        pytest.param(5000, 30, id="5000", marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
async def test_a_batch_with_half_of_its_records_refused_is_bounded(setup: Setup, records: int, seconds: float) -> None:
    """Nobody waits longer than a second, and 5,000 records take at most 30 s (1.5 round trips a record)."""
    engine = setup.other
    await empty_tables(engine)
    await execute(
        engine,
        "INSERT INTO users (id, name, email) SELECT i, i, 'more' || i FROM generate_series(201, 5001) AS i",
        "INSERT INTO user_licenses (user_id, specialization_type, started_at) SELECT id, 'PLAYER', now() FROM users",
    )
    await trigger(engine, "BEFORE UPDATE", "IF NEW.user_id % 2 = 0 THEN RAISE 'even'; END IF; RETURN NEW;")
    await execute(engine, _SECONDS_TO_WRITE)
    consumer = await Events(setup.batch).begin()
    await consumer.apply(rise(1, 2))
    setup.link.trips, setup.link.seconds = 0, 0.004
    async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
        batch = tasks.create_task(consumer.apply(*(rise(user, 2) for user in range(2, records + 2))))
        longest = await _longest_wait(engine, batch)
    assert longest < 1
    assert setup.link.trips <= 1.5 * records + 30
    assert len(await letters(engine)) == records / 2
    assert await position(engine) == records + 1


async def _longest_wait(engine: AsyncEngine, batch: asyncio.Task[None]) -> float:
    """Return how long the application waited for one of the licenses at most, measured by PostgreSQL."""
    longest = 0.0
    while not batch.done():
        longest = max(longest, (await read(engine, "SELECT seconds_to_write()"))[0][0])
        await asyncio.sleep(0.01)
    return longest
