"""A row that the application locks delays its own partition and no other (laws 3 and 4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from events import PROGRESS_LEVELED_UP_TOPIC
from service.settings import Settings
from service.store.engine import SERVER_SETTINGS
from service.stream import consumer
from service.stream.consumer import LevelConsumer
from tests.support import applying
from tests.support.applying import rise, running
from tests.support.process import Make
from tests.support.servers import Kafka
from tests.support.tables import add_rows, count, empty_tables, execute, held, levels_of, steps
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
HELD = TopicPartition(PROGRESS_LEVELED_UP_TOPIC, 0)
_HOLD = "SELECT FROM user_licenses WHERE user_id = 1 FOR UPDATE"


@pytest.fixture
async def two_partitions(kafka: Kafka, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncEngine:
    """One consumer for both partitions of a topic. User 1 has a license of level 1, which the tests lock."""
    monkeypatch.setattr("service.apply.role.CONSUMERS_A_TOPIC", 1)
    await kafka.fresh_topics(2)
    await empty_tables(engine)
    await add_rows(engine, licenses={(1, "PLAYER"): 1})
    return engine


@asynccontextmanager
async def held_back(engine: AsyncEngine, settings: Settings) -> AsyncIterator[None]:
    """Lock the license while users 1, 2 and 1 again have events in partition 0. User 2's is applied on entry."""
    async with held(engine, _HOLD):
        events = [rise(1, 2, 0), rise(2, 2, 0), rise(1, 3, 0), rise(3, 2, 1)]
        await publish(settings.kafka_bootstrap_servers, events)
        await eventually(lambda: reached(engine, 2, 2))
        yield


async def reached(engine: AsyncEngine, user: int, level: int) -> bool:
    return await levels_of(engine, user) == (None, level)


async def assert_all_applied(engine: AsyncEngine, settings: Settings) -> None:
    """Every event of `held_back` is applied once and in order, and every position includes it."""
    await applying.caught_up(settings, engine)
    rises = [(user, *levels) for user, _, *levels in await steps(engine) if user in {1, 2}]
    assert sorted(rises) == [(1, 1, 2), (1, 2, 3), (2, 0, 2)]
    assert await count(engine, "levelsync.dead_letters") == 0


@pytest.mark.parametrize("events", [12, pytest.param(60, marks=pytest.mark.soak)])
async def test_other_partitions_are_not_delayed(two_partitions: AsyncEngine, settings: Settings, events: int) -> None:
    """One consumer reads both. It reads no more of the held row's partition until the row is free."""
    engine, waits = two_partitions, []
    async with running(settings):
        async with held_back(engine, settings):
            await publish(settings.kafka_bootstrap_servers, [rise(4, 2, 0)])
            for number in range(events):
                began = time.monotonic()
                await publish(settings.kafka_bootstrap_servers, [rise(10 + number, 2, 1)])
                await eventually(partial(reached, engine, 10 + number, 2))
                waits.append(time.monotonic() - began)
            assert await levels_of(engine, 4) == (None, None)
            assert (await applying.applied(engine))[HELD] < 3
        await assert_all_applied(engine, settings)
        assert await levels_of(engine, 4) == (None, 2)
    assert sorted(waits)[-2] < 1, waits  # a machine may pause once


async def test_a_rebalance_reads_the_held_records_again(
    two_partitions: AsyncEngine, settings: Settings, consumers: list[LevelConsumer]
) -> None:
    async with running(settings):
        async with held_back(two_partitions, settings), running(settings):
            await eventually(lambda: _shared(consumers))
            await publish(settings.kafka_bootstrap_servers, [rise(5, 2, 1)])
            await eventually(lambda: reached(two_partitions, 5, 2))
        await assert_all_applied(two_partitions, settings)


def _shared(consumers: list[LevelConsumer]) -> bool:
    return [len(one.assignment()) for one in consumers if one.owns_batch] == [1] * 4


async def test_a_process_that_waits_for_a_row_leaves_at_once_and_reads_again(
    two_partitions: AsyncEngine, settings: Settings, levelsync_process: Make
) -> None:
    process = levelsync_process(settings, ("serve", "--roles", "apply"))
    await process.start()
    async with held_back(two_partitions, settings):
        began = time.monotonic()
        assert await process.terminate() == 0
        assert time.monotonic() - began < 6
    async with running(settings):
        await assert_all_applied(two_partitions, settings)


@pytest.mark.parametrize("change", ["next_offset = 0", "next_offset = next_offset + 1", "topic_id = 'another'"])
async def test_a_position_that_is_not_as_it_was_left_begins_again(
    two_partitions: AsyncEngine, settings: Settings, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database went back, another member wrote the row, or the row counts on another topic."""
    monkeypatch.setattr(consumer, "EVICTION_WAIT", 0.5)
    monkeypatch.setitem(SERVER_SETTINGS, "lock_timeout", "1s")  # a waiting batch locks its position row
    async with running(settings):
        await publish(settings.kafka_bootstrap_servers, [rise(6, 2, 0)])
        await applying.caught_up(settings, two_partitions)
        async with held_back(two_partitions, settings):
            where = f"topic = '{HELD.topic}' AND partition = {HELD.partition}"
            await execute(two_partitions, f"UPDATE levelsync.applied_offsets SET {change} WHERE {where}")
        await assert_all_applied(two_partitions, settings)


async def test_a_topic_recreated_while_a_row_is_held_is_read_from_its_beginning(
    two_partitions: AsyncEngine, settings: Settings, kafka: Kafka
) -> None:
    async with running(settings):
        async with held_back(two_partitions, settings):
            await kafka.fresh_topics(2)
            await publish(settings.kafka_bootstrap_servers, [rise(user, 5, user % 2) for user in range(100, 120)])
        await applying.caught_up(settings, two_partitions)
        assert {await levels_of(two_partitions, user) for user in range(100, 120)} == {(None, 5)}


@pytest.mark.usefixtures("impatient")
async def test_a_row_that_is_held_is_named_and_is_no_stall(
    two_partitions: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SERVER_SETTINGS, "lock_timeout", "500ms")
    async with running(settings) as service:
        async with held_back(two_partitions, settings):
            await eventually(lambda: applying.names(service, "lock timeout"))
            for _ in range(8):
                await publish(settings.kafka_bootstrap_servers, [rise(7, 2, 1)])
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(service.ended(), 0.5)
                assert (await applying.get(service, "/livez"))[0] == 200
        await assert_all_applied(two_partitions, settings)
        await eventually(lambda: applying.is_well(service))
