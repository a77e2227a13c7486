"""Faults of the installation are named and retried, and cause no dead letters (law 4)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings, SettingsError
from tests.support import applying
from tests.support.applying import rise, running
from tests.support.model import ADVANCED, LEVELED_UP
from tests.support.process import Make
from tests.support.tables import count, execute, licenses, progress, read
from tests.support.topics import publish
from tests.support.waiting import eventually

NEEDS_VALUES = (
    "CREATE TYPE mood AS ENUM ('calm', 'wild')",
    "ALTER TABLE user_licenses ADD COLUMN mood mood NOT NULL, ADD COLUMN tags text[] NOT NULL",
    'ALTER TABLE user_licenses ADD COLUMN extra jsonb NOT NULL, ADD COLUMN "the Date" date NOT NULL',
    "ALTER TABLE specialization_progress ADD COLUMN club_id bigint NOT NULL, ADD COLUMN rate numeric(5, 2) NOT NULL",
)
LICENSE_DEFAULTS = {"mood": "wild", "tags": ["a", 'b"{}'], "extra": {"n": [1, None]}, "the Date": "2026-02-28"}
PROGRESS_DEFAULTS = {"club_id": 2**40, "rate": 1.25}


async def test_serve_names_the_columns_that_nobody_fills_and_leaves_with_two(
    database: AsyncEngine, settings: Settings, levelsync_process: Make
) -> None:
    await execute(database, *NEEDS_VALUES)
    some = settings.model_copy(update={"license_defaults": {"mood": "calm", "tags": []}})
    process = levelsync_process(some, ("serve", "--roles", "apply"))
    await process.start(ready=False)
    assert await process.wait() == 2
    columns = ("user_licenses has columns", "extra (jsonb)", "the Date (date)", "club_id (bigint)")
    for named in (*columns, "LEVELSYNC_LICENSE_DEFAULTS", "LEVELSYNC_PROGRESS_DEFAULTS"):
        assert named in process.output
    assert "mood (" not in process.output


async def test_without_a_maximum_the_service_does_not_start(database: AsyncEngine, settings: Settings) -> None:
    """`serve` ends with exit code 2 after a SettingsError."""
    await execute(database, *NO_COLUMN.broken)
    with pytest.raises(SettingsError, match="has no column max_levels and LEVELSYNC_MAX_LEVELS is not set"):
        async with running(settings):
            pass


async def test_unusable_specializations_are_named(database: AsyncEngine, settings: Settings, log: list[Any]) -> None:
    """Events of the others are applied, with the maximum of the setting."""
    await execute(database, *NO_COLUMN.broken)
    await publish(settings.kafka_bootstrap_servers, [rise(1, 3, 0)])
    async with running(settings.model_copy(update={"max_levels": {"player": 3}})):
        await eventually(lambda: _applied(database, 1, 0))
    said = sorted(line["reason"].split(":")[0] for line in log if line["event"].startswith("events wait"))
    assert said == ["no highest level of COACH is known", "no highest level of INTERNSHIP is known"]


async def test_columns_of_any_type_get_values_from_the_settings(database: AsyncEngine, settings: Settings) -> None:
    """PostgreSQL parses each value: an enum, an array, JSON, a date, numbers."""
    await execute(database, *NEEDS_VALUES)
    given = {"license_defaults": LICENSE_DEFAULTS, "progress_defaults": PROGRESS_DEFAULTS}
    sent = [rise(user, 3, 0, kind) for kind in (LEVELED_UP, ADVANCED) for user in (1, 2)]
    await publish(settings.kafka_bootstrap_servers, sent)
    async with running(settings.model_copy(update=given)):
        await eventually(lambda: _applied(database, 2, 2))
    found = await read(database, 'SELECT mood::text, tags, extra, "the Date"::text FROM user_licenses')
    assert found == [tuple(LICENSE_DEFAULTS.values())] * 2
    found = await read(database, "SELECT club_id, rate::float FROM specialization_progress")
    assert found == [tuple(PROGRESS_DEFAULTS.values())] * 2


@dataclass(frozen=True)
class Fault:
    """How the installation breaks while the service runs, what /readyz must say, and how it is repaired."""

    broken: tuple[str, ...]
    named: tuple[str, ...]
    repaired: str


NOT_NULL = Fault(
    (
        "ALTER TABLE user_licenses ADD COLUMN club text NOT NULL DEFAULT ''",
        "ALTER TABLE user_licenses ALTER COLUMN club DROP DEFAULT",
    ),
    ("club", "not-null"),
    "ALTER TABLE user_licenses ALTER COLUMN club SET DEFAULT 'none'",
)
REFUSES_ALL = Fault(
    ("ALTER TABLE user_licenses ADD CONSTRAINT nobody CHECK (current_level < 0) NOT VALID",),
    ("nobody", "20 users in a row"),
    "ALTER TABLE user_licenses DROP CONSTRAINT nobody",
)
ANOTHER_KEY = Fault(
    ("CREATE UNIQUE INDEX one_a_level ON user_licenses (current_level)",),
    ("one_a_level", "20 users in a row"),
    "DROP INDEX one_a_level",
)
NO_CURRICULUM = Fault(
    ("CREATE TABLE kept AS TABLE specializations", "DELETE FROM specializations"),
    ("specializations is empty",),
    "INSERT INTO specializations SELECT * FROM kept",
)
NO_COLUMN = Fault(
    ("ALTER TABLE specializations DROP COLUMN max_levels",),
    ("no column max_levels", "LEVELSYNC_MAX_LEVELS"),
    "ALTER TABLE specializations ADD COLUMN max_levels int NOT NULL DEFAULT 8",
)
NO_MAXIMUM = Fault(
    (
        "ALTER TABLE specializations ALTER COLUMN max_levels DROP NOT NULL",
        "UPDATE specializations SET max_levels = NULL WHERE id = 'PLAYER'",
    ),
    ("no highest level of PLAYER", "LEVELSYNC_MAX_LEVELS"),
    "UPDATE specializations SET max_levels = 8 WHERE id = 'PLAYER'",
)
ONE_NAME_TWICE = Fault(
    ("INSERT INTO specializations (id, name, max_levels) VALUES ('player', 'p', 8)",),
    ("PLAYER and player", "one name apart from case"),
    "DELETE FROM specializations WHERE id = 'player'",
)
FAULTS = [NOT_NULL, REFUSES_ALL, ANOTHER_KEY, NO_CURRICULUM, NO_COLUMN, NO_MAXIMUM, ONE_NAME_TWICE]


@pytest.mark.real_broker
async def test_a_fault_of_the_installation_is_named_and_retried_until_it_is_repaired(
    database: AsyncEngine, settings: Settings, log: list[Any]
) -> None:
    """Law 4: no fault of the installation causes a dead letter."""
    async with running(settings) as service:
        for fault in FAULTS:
            print(fault.named)  # noqa: T201 - pytest shows it for a test that failed
            end = await applying.caught_up(settings, database)
            await execute(database, "TRUNCATE user_licenses CASCADE", *fault.broken)
            log.clear()
            one_batch = [rise(user, 3, 0) for user in range(1, 41)]
            await publish(settings.kafka_bootstrap_servers, one_batch, linger_ms=300)
            await eventually(partial(applying.names, service, *fault.named, component="appliers"))
            assert (await applying.get(service, "/livez"))[0] == 200
            await asyncio.sleep(1)  # long enough to detect a hot loop
            await eventually(lambda: _retries(log) >= 3)
            assert _retries(log) < 30
            assert await applying.committed(settings) == await applying.applied(database) == end
            assert await count(database, "levelsync.dead_letters") == 0
            await execute(database, fault.repaired)
            await eventually(lambda: _applied(database, 40, 0))
            await applying.caught_up(settings, database)
            assert await applying.problems(service) == {}
            assert await count(database, "levelsync.dead_letters") == 0
            assert {line["cause"] for line in log if line["event"] == "batch is retried"} == {"installation"}
            assert "dead letters" not in {line["event"] for line in log}


def _retries(log: list[Any]) -> int:
    return sum(line["event"] == "batch is retried" for line in log)


async def _applied(engine: AsyncEngine, of_licenses: int, of_progress: int) -> bool:
    return (len(await licenses(engine)), len(await progress(engine))) == (of_licenses, of_progress)
