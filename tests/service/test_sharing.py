"""Two services of one group, as two objects that share only Kafka and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply import role
from service.apply.batch import Applier
from service.settings import Settings
from service.stream import consumer
from service.stream.consumer import LevelConsumer
from tests.support import applying
from tests.support.applying import running
from tests.support.load import Load, make_load
from tests.support.model import ADVANCED, LEVELED_UP, Meant, Model
from tests.support.published import Setup
from tests.support.records import MAXIMUM, as_sent
from tests.support.tables import assert_equal_to, held, history, licenses, progress, somebody_waits
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker


_LICENSE = """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    VALUES (1, 'PLAYER', 2, 2, now())
"""
_PROGRESS = "INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'PLAYER', 2)"


async def test_two_services_share_the_partitions_and_one_leaves(setup: Setup, consumers: list[LevelConsumer]) -> None:
    """Laws 1 and 3: the tables and the history are the model's, whichever service applies a record."""
    settings = setup.settings.model_copy(update={"batch_max_records": 50})
    await setup.publish(make_load(Load(1000, 100, seed=12, bad=0.01), "a"))
    async with running(settings):
        async with running(settings):
            await eventually(lambda: _each_has_one(consumers))
            await setup.publish(make_load(Load(4000, 100, seed=13, bad=0.01), "b"))
            await setup.wait_applied(2000)
        assert await setup.applied() < setup.published
        await setup.publish(make_load(Load(500, 100, seed=14), "c"))
        await setup.assert_ended()
        await applying.caught_up(settings, setup.engine)


def _each_has_one(consumers: list[LevelConsumer]) -> bool:
    return [len(one.assignment()) for one in consumers] == [1] * 8


async def test_a_consumer_that_was_evicted_and_still_writes_does_no_harm(
    database: AsyncEngine, settings: Settings, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 3: its transaction commits after the group reassigned its partitions. The new owners wait for it."""
    monkeypatch.setattr(consumer, "DRAIN_TIMEOUT", 0.2)
    monkeypatch.setattr(consumer, "EVICTION_WAIT", 0.5)
    monkeypatch.setattr(role, "Applier", _waits_with_the_batch_in_hand)
    model = Model(MAXIMUM, set(range(1, 201)))
    await _rise(settings, model, 1)
    async with running(settings):
        await applying.caught_up(settings, database)
        async with held(database, "SELECT FROM user_licenses FOR UPDATE"):
            await _rise(settings, model, 2)
            await somebody_waits(database, 2)
            second = running(settings)
            await second.__aenter__()
            await _rise(settings, model, 3)
            await somebody_waits(database, 3)  # the new owners wait for the position rows
        try:
            await applying.caught_up(settings, database)
        finally:
            await second.__aexit__(None, None, None)
    await assert_equal_to(model, database)
    said = {line["event"] for line in log}
    revoked = "partitions revoked before their batch was finished"
    assert {revoked, "batch given up: its partitions have another owner"} <= said


async def test_a_row_created_during_a_batch_is_decided_again(database: AsyncEngine, settings: Settings) -> None:
    """Law 1: an insert that conflicts does not skip the event. The history contains both levels."""
    async with running(settings):
        await applying.caught_up(settings, database)
        async with database.begin() as application:
            await application.execute(text(_LICENSE))
            await application.execute(text(_PROGRESS))
            await _publish(settings, [_meant(LEVELED_UP, 1, 3), _meant(ADVANCED, 1, 3)])
            await somebody_waits(database, 2)
        await applying.caught_up(settings, database)
    assert await licenses(database) == await progress(database) == {(1, "PLAYER"): 3}
    assert [row[:3] for row in await history(database)] == [((1, "PLAYER"), 2, 3)]


def _waits_with_the_batch_in_hand(*arguments: Any, **_leaves_held: bool) -> Applier:
    """Return an applier that leaves no held rows to a task beside the consumer, as where a whole table is locked."""
    return Applier(*arguments)


async def _rise(settings: Settings, model: Model, level: int) -> None:
    meant = [_meant(LEVELED_UP, user, level) for user in range(1, 13)]
    for one in meant:
        model.apply(one)
    await _publish(settings, meant)


def _meant(kind: str, user: int, level: int) -> Meant:
    return Meant(kind, user, "PLAYER", level, datetime.now(UTC), "/test", f"{user}-{level}")


async def _publish(settings: Settings, meant: list[Meant]) -> None:
    """Publish events. A user's partition is the id modulo four."""
    await publish(settings.kafka_bootstrap_servers, [as_sent(one, one.user % 4) for one in meant])
