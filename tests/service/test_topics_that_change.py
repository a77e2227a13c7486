"""Retention, topics that are created again, and new partitions: what Kafka does to positions (law 3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions
from sqlalchemy.ext.asyncio import AsyncEngine

from service.process.runtime import Service
from service.settings import Settings
from service.stream import broker
from service.stream.consumer import LevelConsumer
from tests.support import applying
from tests.support.applying import TOPICS, rise, running
from tests.support.load import Load, make_load
from tests.support.published import Scene
from tests.support.servers import Kafka
from tests.support.tables import licenses
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
LEVELED = TOPICS[0]
LOST = "levelsync_records_lost_total"


async def test_records_that_retention_took_unread_are_counted_told_and_a_reconcile_is_asked_for(
    database: AsyncEngine, settings: Settings, log: list[Any], consumers: list[LevelConsumer]
) -> None:
    """Law 3: while the service was stopped, and while it runs; work goes on with what is left."""
    send = settings.kafka_bootstrap_servers
    await publish(send, [rise(1, level, 0) for level in (1, 2)] + [rise(2, 1, 1)])
    async with running(settings) as service:
        await applying.caught_up(settings, database)
        before = await applying.metrics(service)
    await publish(send, [rise(1, level, 0) for level in (3, 4, 5)] + [rise(2, 2, 1), rise(2, 3, 1)])
    await applying.delete_records_below(settings, {TopicPartition(LEVELED, 0): 4, TopicPartition(LEVELED, 1): 3})
    async with running(settings) as service:
        await applying.caught_up(settings, database)
        assert await licenses(database) == {(1, "PLAYER"): 5, (2, "PLAYER"): 1}
        assert await lost(service, before) == {"0": 2, "1": 2}
        await eventually(lambda: no_lag(service))  # partition 1 is empty: its log start is its end
        await _lose_while_it_runs(settings, database, consumers)
        assert await lost(service, before) == {"0": 4, "1": 2}
        assert await applying.problems(service) == {}
    assert await licenses(database) == {(1, "PLAYER"): 8, (2, "PLAYER"): 1}
    told = [line for line in log if line["event"] == "retention took records unread"]
    assert [(line["log_level"], line["lost"]) for line in told] == [("error", 2)] * 3
    await _assert_requested(database, 3)


async def _lose_while_it_runs(settings: Settings, engine: AsyncEngine, consumers: list[LevelConsumer]) -> None:
    """Records come and go while the consumer does not read."""
    partition = TopicPartition(LEVELED, 0)
    owner = next(one for one in consumers if partition in one.assignment() and not one._closed)
    owner.pause(partition)
    await publish(settings.kafka_bootstrap_servers, [rise(1, level, 0) for level in (6, 7, 8)])
    await applying.delete_records_below(settings, {partition: 7})
    owner.resume(partition)
    await applying.caught_up(settings, engine)


async def _assert_requested(engine: AsyncEngine, times: int) -> None:
    """The outbox holds so many requests for a dry run that never lowers a level, each with an id of its own."""
    found = await applying.rows(engine, "SELECT topic, value, headers FROM levelsync.outbox")
    assert [topic for topic, _, _ in found] == ["sync.reconcile-requested"] * times
    assert all(json.loads(value)["direction"] == "highest" and json.loads(value)["dry_run"] for _, value, _ in found)
    assert len({dict(headers)["ce_id"] for _, _, headers in found}) == times


async def lost(service: Service, before: applying.Metrics) -> dict[str, float]:
    counted = applying.since(before, await applying.metrics(service))
    return {dict(key[1])["partition"]: value for key, value in counted.items() if key[0] == LOST and value}


async def no_lag(service: Service) -> bool:
    found = await applying.metrics(service)
    return not any(value for (name, _), value in found.items() if name == "levelsync_consumer_lag_records")


async def test_a_topic_made_anew_starts_anew(scene: Scene, kafka: Kafka) -> None:
    """Law 3: positions of the old topic skip nothing of the new one, which may be shorter or longer."""
    await scene.publish(make_load(Load(200, 30, seed=4), "old"))
    async with running(scene.settings):
        await scene.assert_ended()
    await kafka.fresh_topics()
    await publish(scene.settings.kafka_bootstrap_servers, [rise(190, 7, partition) for partition in range(4)])
    async with running(scene.settings):
        await applying.caught_up(scene.settings, scene.engine)
    assert (await licenses(scene.engine))[190, "PLAYER"] == 7


async def test_new_partitions_of_a_topic_are_picked_up_while_the_service_runs(
    database: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was published to them before they were noticed is not skipped."""
    monkeypatch.setattr(broker, "METADATA_MAX_AGE_MS", 2_000)
    async with running(settings):
        await applying.caught_up(settings, database)
        async with applying.admin(settings) as client:
            await client.create_partitions({LEVELED: NewPartitions(6)})
        await eventually(lambda: _exist(settings, 10))
        await publish(settings.kafka_bootstrap_servers, [rise(1, 3, 4), rise(2, 4, 5), rise(3, 5, 0)])
        end = await applying.caught_up(settings, database)
    assert len(end) == 10
    assert await licenses(database) == {(1, "PLAYER"): 3, (2, "PLAYER"): 4, (3, "PLAYER"): 5}


async def _exist(settings: Settings, partitions: int) -> bool:
    return len(await applying.ends(settings)) == partitions
