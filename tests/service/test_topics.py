"""Topics that change: retention, compaction, new partitions, recreated topics, damaged logs (laws 3 and 4)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sqlalchemy.ext.asyncio import AsyncEngine

from service.checks import Verdict
from service.cli.doctor_checks import POLICY, kafka_findings
from service.process.runtime import Service
from service.settings import Settings
from service.stream import broker
from service.stream.connection import admin_client
from service.stream.consumer import LevelConsumer
from tests.support import applying
from tests.support.apache_kafka import ApacheKafka
from tests.support.applying import TOPICS, rise, running
from tests.support.servers import Kafka
from tests.support.tables import held, licenses, read, somebody_waits
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
LEVELED = TOPICS[0]
TOPIC_ID = "SELECT DISTINCT topic_id FROM levelsync.applied_offsets WHERE topic = 'progress.leveled-up'"
EPOCH = "SELECT leader_epoch FROM levelsync.applied_offsets WHERE topic = 'progress.leveled-up' AND partition = 0"
LOST = "levelsync_records_lost_total"


async def test_records_that_retention_took_unread_are_counted_told_and_a_reconcile_is_asked_for(
    database: AsyncEngine, settings: Settings, log: list[Any], consumers: list[LevelConsumer]
) -> None:
    """Law 3: while the service is stopped and while it runs. Work goes on with the records that are left."""
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
        await eventually(lambda: applying.has_no_lag(service))  # partition 1 is empty: its log start is its end
        await _lose_while_it_runs(settings, database, consumers)
        assert await lost(service, before) == {"0": 4, "1": 2}
        assert await applying.problems(service) == {}
    assert await licenses(database) == {(1, "PLAYER"): 8, (2, "PLAYER"): 1}
    told = [line for line in log if line["event"] == "retention deleted records that were never read"]
    assert [(line["log_level"], line["lost"]) for line in told] == [("error", 2)] * 3
    requests = await read(database, "SELECT topic, value, headers FROM levelsync.outbox")
    assert [topic for topic, _, _ in requests] == ["sync.reconcile-requested"] * 3
    asked = [json.loads(value) for _, value, _ in requests]
    assert [(one["direction"], one["dry_run"]) for one in asked] == [("highest", True)] * 3
    assert len({dict(headers)["ce_id"] for _, _, headers in requests}) == 3


async def _lose_while_it_runs(settings: Settings, engine: AsyncEngine, consumers: list[LevelConsumer]) -> None:
    """Publish and delete records while the consumer does not read."""
    partition = TopicPartition(LEVELED, 0)
    owner = next(one for one in consumers if partition in one.assignment() and not one._closed)
    owner.pause(partition)
    await publish(settings.kafka_bootstrap_servers, [rise(1, level, 0) for level in (6, 7, 8)])
    await applying.delete_records_below(settings, {partition: 7})
    owner.resume(partition)
    await applying.caught_up(settings, engine)


async def lost(service: Service, before: applying.Metrics) -> dict[str, float]:
    counted = applying.since(before, await applying.metrics(service))
    return {dict(key[1])["partition"]: value for key, value in counted.items() if key[0] == LOST and value}


async def test_new_partitions_of_a_topic_are_picked_up_while_the_service_runs(
    database: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "METADATA_MAX_AGE_MS", 2_000)
    async with running(settings):
        await applying.caught_up(settings, database)
        async with admin_client(settings) as client:
            await client.create_partitions({LEVELED: NewPartitions(6)})
        await eventually(lambda: _exist(settings, 10))
        await publish(settings.kafka_bootstrap_servers, [rise(1, 3, 4), rise(2, 4, 5), rise(3, 5, 0)])
        end = await applying.caught_up(settings, database)
    assert len(end) == 10
    assert await licenses(database) == {(1, "PLAYER"): 3, (2, "PLAYER"): 4, (3, "PLAYER"): 5}


async def _exist(settings: Settings, partitions: int) -> bool:
    return len(await applying.ends(settings)) == partitions


COMPACT = "license.advanced"


async def set_policy(settings: Settings, policy: str) -> None:
    async with admin_client(settings) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, COMPACT, {"cleanup.policy": policy})])


async def policy_finding(settings: Settings) -> tuple[Verdict, str]:
    [finding] = [one for one in await kafka_findings(settings) if one.check == POLICY]
    return finding.verdict, finding.detail


@pytest.mark.usefixtures("topics")
async def test_a_compacted_topic_is_a_fault_of_the_installation(settings: Settings) -> None:
    """`serve` names the topic and waits for the repair. `doctor` fails."""
    for policy in ("compact", "compact,delete"):
        await set_policy(settings, policy)
        assert await policy_finding(settings) == (Verdict.FAIL, f"compacted: {COMPACT}")
    async with Service(settings, frozenset({"apply"})) as service:
        await eventually(lambda: applying.names(service, f"Kafka compacts the topics {COMPACT}"))
        await set_policy(settings, "delete")
        await asyncio.wait_for(service.ready(), 30)
    assert (await policy_finding(settings))[0] is Verdict.PASS


async def test_a_topic_recreated_with_a_batch_in_hand_is_read_from_its_beginning(
    database: AsyncEngine, settings: Settings, kafka: Kafka
) -> None:
    """The new topic may be shorter than the old position, or have passed it."""
    send = settings.kafka_bootstrap_servers
    async with running(settings):
        for refill in (range(101, 121), range(121, 201)):
            async with held(database, "LOCK TABLE user_licenses IN EXCLUSIVE MODE"):
                await publish(send, [rise(user, 3, 0) for user in range(1, 41)])
                await somebody_waits(database)
                await kafka.fresh_topics()
                await publish(send, [rise(user, 5, 0) for user in refill])
            await applying.caught_up(settings, database)
            assert {user for user, _ in await licenses(database) if user >= refill.start} == set(refill)


async def test_recreated_topics_lose_no_record(database: AsyncEngine, settings: Settings, kafka: Kafka) -> None:
    """An idle service has fetched ahead, and asks the new topic for the old position. So does one that starts.

    A position has the id of its topic, in the form that Kafka's tools print. A recreated topic has another one.
    """
    send = settings.kafka_bootstrap_servers
    async with running(settings):
        await publish(send, [rise(user, 3, user % 4) for user in range(1, 81)])
        await applying.caught_up(settings, database)
        [*ids] = await read(database, TOPIC_ID)
        for level in (4, 5, 6):
            await kafka.fresh_topics()
            await publish(send, [rise(user, level, user % 4) for user in range(1, 161)])
            await applying.caught_up(settings, database)
            assert await licenses(database) == {(user, "PLAYER"): level for user in range(1, 161)}
            ids += await read(database, TOPIC_ID)
    await kafka.fresh_topics()
    await publish(send, [rise(190, 7, partition) for partition in range(4)])
    async with running(settings):
        await applying.caught_up(settings, database)
    assert (await licenses(database))[190, "PLAYER"] == 7
    assert [len(one) for (one,) in ids] == [22] * 4
    assert len(set(ids)) == 4


@pytest.fixture
def segment(kafka: Kafka) -> Path:
    """The broker's file with the first records of partition 0 of progress.leveled-up."""
    if not isinstance(kafka._server, ApacheKafka):
        pytest.skip("the broker's log is not ours to damage")
    return kafka._server.folder / "data" / f"{LEVELED}-0" / f"{0:020}.log"


async def test_a_log_that_was_cut_off_and_has_grown_again_is_read_from_where_it_was_cut(
    database: AsyncEngine, settings: Settings, kafka: Kafka, segment: Path
) -> None:
    """The offsets agree, but the leader epochs do not. The broker knows where the common part ends."""
    send = settings.kafka_bootstrap_servers
    async with running(settings):
        for first in (1, 21, 41):
            await publish(send, [rise(user, 3, 0) for user in range(first, first + 20)])
        await applying.caught_up(settings, database)
    await kafka.kill()
    cut_off_the_last_batch(segment)
    await kafka.start()
    [first, *_] = await publish(send, [rise(user, 3, 0) for user in range(101, 141)])
    assert first == 40
    async with running(settings):
        await applying.caught_up(settings, database)
        [(epoch,)] = await read(database, EPOCH)
    assert {user for user, _ in await licenses(database)} == {*range(1, 61), *range(101, 141)}
    assert epoch > 0


def cut_off_the_last_batch(segment: Path) -> None:
    """Remove a byte of it, as a crash before the disk's write does. The broker removes the rest of the batch."""
    with segment.open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1)


@pytest.mark.usefixtures("impatient")
async def test_a_corrupt_record_waits_for_its_repair(database: AsyncEngine, settings: Settings, segment: Path) -> None:
    """Law 4: it is retried. The records before it and the other partitions are applied. The wait is not a stall."""
    send = settings.kafka_bootstrap_servers
    for user in (1, 2, 3):
        await publish(send, [rise(user, 3, 0)])
    await publish(send, [rise(user, 3, user % 3 + 1) for user in range(11, 41)])
    flip(segment, b"e2-3")
    async with running(settings) as service:
        before = await applying.metrics(service)

        async def all_but_the_corrupt_one() -> bool:
            assert {user for user, _ in await licenses(database)} == {1, *range(11, 41)}
            return await applying.names(service, "CorruptRecordException")

        await eventually(all_but_the_corrupt_one)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.ended(), 4)
        counted = applying.since(before, await applying.metrics(service))
        assert counted["levelsync_retries_total", applying.labels(cause="kafka_unavailable")] > 0
        flip(segment, b"E2-3")
        await applying.caught_up(settings, database)
        await eventually(lambda: applying.is_well(service))
    assert {user for user, _ in await licenses(database)} == {1, 2, 3, *range(11, 41)}


def flip(segment: Path, text: bytes) -> None:
    """Change the case of a text in the broker's file."""
    with segment.open("r+b") as file:
        at = file.read().index(text)
        file.seek(at)
        file.write(text.swapcase())
