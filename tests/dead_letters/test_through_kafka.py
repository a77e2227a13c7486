"""Letters on their whole way: the outbox, Kafka, the appliers, and the letters again, even when a process is killed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from events import ReconcileRequested
from service.cli import app
from service.dead_letters.select import Selection
from service.dead_letters.write import replay
from service.process.runtime import Service
from service.settings import Settings
from tests.support import applying, topics
from tests.support.applier import one
from tests.support.letters import ODD
from tests.support.model import LEVELED_UP, Meant
from tests.support.process import Make, environment, levelsync
from tests.support.records import as_record
from tests.support.tables import count, empty_tables, everything, execute, history, licenses, read
from tests.support.topics import Record, publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
USER = 500


@pytest.fixture
async def database(engine: AsyncEngine, topics: list[str]) -> AsyncEngine:  # noqa: ARG001 - empty ones
    """Empty topics and tables, and 200 users."""
    await empty_tables(engine)
    return engine


async def letters(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    query = "SELECT resolution, attempts, replayed_at IS NULL FROM levelsync.dead_letters ORDER BY id"
    return await read(engine, query)


async def there_are(engine: AsyncEngine, *expected: tuple[Any, ...]) -> None:
    async def reached() -> bool:
        assert await letters(engine) == list(expected)
        return True

    await eventually(reached)


def records() -> list[Record]:
    """Return three records: one of an unknown user with odd headers, one that is never right, and a tombstone."""
    record = as_record(one(user=USER), 0)
    good = Record(record.topic, record.key, record.value, [*record.headers, *ODD])
    return [good, good._replace(value=b"\xff\x00"), good._replace(value=None)]


async def run(settings: Settings, *arguments: str) -> tuple[int, Any]:
    done = await asyncio.to_thread(levelsync, "dead-letters", *arguments, "--json", env=environment(settings))
    return done.returncode, json.loads(done.stdout or "null")


async def test_a_replay_applies_or_fails_and_a_reset_changes_nothing(database: AsyncEngine, settings: Settings) -> None:
    """The command waits for both and returns 1. Then every record is read once more."""
    await publish(settings.kafka_bootstrap_servers, records())
    async with Service(settings, frozenset({"apply", "relay"})) as service:
        await asyncio.wait_for(service.ready(), 60)
        await there_are(database, *[(None, 1, True)] * 3)
        user = f"INSERT INTO users (id, name, email) VALUES ({USER}, 'New', 'new@example.org')"
        await execute(database, user)
        code, report = await run(settings, "replay", "--all")
        end = await applying.caught_up(settings, database)
    assert (code, report["selected"], report["closed"], report["failed"]) == (1, 3, 1, 2)
    assert await letters(database) == [("replayed", 1, True), (None, 2, True), (None, 2, True)]
    assert await licenses(database) == {(USER, "PLAYER"): 3}
    before = await everything(database)
    await topics.reset(settings.kafka_bootstrap_servers, settings.kafka_group_id, dict.fromkeys(end, 0))
    async with applying.running(settings):
        await applying.caught_up(settings, database)
    assert await everything(database) == before


async def test_a_request_that_was_a_letter_becomes_a_run(database: AsyncEngine, settings: Settings) -> None:
    request = ReconcileRequested(specialization="WIZARD").to_kafka()
    wizard = "INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 8)"
    async with Service(settings, frozenset({"relay", "reconcile"})) as service:
        await asyncio.wait_for(service.ready(), 60)
        await publish(settings.kafka_bootstrap_servers, [Record(*request)])
        await there_are(database, (None, 1, True))
        assert (await run(settings, "replay", "1"))[0] == 1
        await there_are(database, (None, 2, True))
        await execute(database, wizard)
        code, report = await run(settings, "replay", "--reason", "unknown_specialization")
    assert (code, report["closed"]) == (0, 1)
    assert await count(database, "levelsync.reconcile_runs") == 1


async def test_a_replay_that_no_process_handles_is_exit_3(
    database: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process relays and applies. The letter stays open, and its record stays in the outbox."""
    async with applying.running(settings):
        await publish(settings.kafka_bootstrap_servers, records()[:1])
        await there_are(database, (None, 1, True))
    monkeypatch.setattr("service.cli.letter_writes.REPLAY_TIMEOUT", 0.5)
    code, report = await run_here(settings, "replay", "1")
    assert (code, report["pending"]) == (3, 1)
    assert await count(database, "levelsync.outbox WHERE topic = 'progress.leveled-up'") == 1
    assert (await run(settings, "replay", "1"))[1]["on_its_way"] == 1


async def run_here(settings: Settings, *arguments: str) -> tuple[int, Any]:
    """Run the command in this process, where its timeout can be shortened."""
    command = ["dead-letters", *arguments, "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, command, env=environment(settings))
    return done.exit_code, json.loads(done.stdout)


USERS, LEVELS = range(1001, 1101), range(2, 9)
_MAKE = "INSERT INTO users (id, name, email) SELECT n, 'New', n || '@example.org' FROM generate_series(1001, 1100) n"


def rises() -> list[Record]:
    """Return events of users who do not exist yet, level by level."""
    began = datetime.now(UTC) - timedelta(minutes=5)
    meant = [
        Meant(LEVELED_UP, user, "PLAYER", level, began + timedelta(seconds=level), "/test", f"{user}-{level}")
        for level in LEVELS
        for user in USERS
    ]
    return [Record(r.topic, r.key, r.value, list(r.headers), r.timestamp) for r in (as_record(one, 0) for one in meant)]


@pytest.mark.usefixtures("topics")
async def test_every_letter_is_applied_once_and_in_order_though_its_process_is_killed(
    engine: AsyncEngine, settings: Settings, levelsync_process: Make
) -> None:
    """A record that was sent twice is applied once."""
    await empty_tables(engine)
    first, second = (levelsync_process(arguments=("serve", "--roles", "apply,relay")) for _ in range(2))
    await first.start()
    await publish(settings.kafka_bootstrap_servers, rises())

    async def are(condition: str, number: int) -> bool:
        return await count(engine, f"levelsync.dead_letters WHERE {condition}") >= number

    await eventually(lambda: are("true", len(USERS) * len(LEVELS)))
    await eventually(lambda: "relaying the outbox" in first.output)
    await second.start()
    await execute(engine, _MAKE)
    assert [len(ids) async for ids in replay(engine, Selection(), "test")] == [len(USERS) * len(LEVELS)]
    await eventually(lambda: are("resolved_at IS NOT NULL", 1))
    first.kill()
    await eventually(lambda: are("resolution = 'replayed'", len(USERS) * len(LEVELS)), 60)
    steps = {((user, "PLAYER"), level) for user in USERS for level in LEVELS}
    found = [(pair, before, after) for pair, before, after, *_ in await history(engine)]
    assert len(found) == len(steps)
    assert {(pair, after) for pair, _, after in found} == steps
    assert all(before == (after - 1 if after > LEVELS[0] else 0) for _, before, after in found)
    assert await count(engine, "levelsync.dead_letters WHERE attempts > 1") == 0
    await asyncio.to_thread(second.stop)
