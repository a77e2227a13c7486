"""Missing topics are created, and the ends of topics are read."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from events import TOPICS
from service.local import EmbeddedBroker
from service.settings import Settings
from service.stream.connection import admin_client, describe_cluster
from service.stream.lag import EVENT_TOPICS, EndOffsets
from service.stream.topics import TopicsError, compacted_topics, ensure_topics
from tests.support.servers import Kafka
from tests.support.waiting import eventually


def settings_for(bootstrap_servers: str, **more: object) -> Settings:
    return Settings(_env_file=None, kafka_bootstrap_servers=bootstrap_servers, **more)  # type: ignore[arg-type]


@pytest.fixture
async def without_topics(kafka: Kafka) -> Settings:
    """Settings for the session's broker, which has no topic now."""
    await kafka.fresh_topics()
    settings = settings_for(kafka.bootstrap_servers, kafka_topic_partitions=3)
    async with admin_client(settings) as client:
        await client.delete_topics(list(TOPICS))

    async def gone() -> bool:
        return not (await describe_cluster(settings)).partitions.keys() & set(TOPICS)

    await eventually(gone)
    return settings


async def test_missing_topics_are_created_with_the_configured_partitions(without_topics: Settings) -> None:
    """Several processes may create them at once.

    Without permission (KAFKA_CREATE_TOPICS=false) they are named and not created. The service does not request a topic
    by name, because some brokers would create it.
    """
    forbidden = without_topics.model_copy(update={"kafka_create_topics": False})
    assert await ensure_topics(forbidden) == list(TOPICS)
    assert await ensure_topics(forbidden) == list(TOPICS)
    assert await asyncio.gather(*(ensure_topics(without_topics) for _ in range(4))) == [[]] * 4
    found = (await describe_cluster(without_topics)).partitions
    assert {topic: found[topic] for topic in TOPICS} == dict.fromkeys(TOPICS, 3)
    assert await ensure_topics(without_topics) == []


SET_ON_THE_TOPIC = 1
"""Kafka's number for where a value comes from; 5 is the broker's default."""


@pytest.mark.real_broker
async def test_topics_that_are_created_say_that_they_are_not_compacted(without_topics: Settings) -> None:
    assert await ensure_topics(without_topics) == []
    async with admin_client(without_topics) as client:
        [answer] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPICS[0], None)])
    [(_, _, _, _, entries)] = answer.resources
    [(_, value, _, source, *_)] = [entry for entry in entries if entry[0] == "cleanup.policy"]
    assert (value, source) == ("delete", SET_ON_THE_TOPIC)
    assert await compacted_topics(without_topics) == ([], [])


@pytest.mark.real_broker
async def test_a_refusal_is_kafka_s_own_reason(without_topics: Settings) -> None:
    too_many = without_topics.model_copy(update={"kafka_topic_replication": 3})
    with pytest.raises(TopicsError, match=r"progress\.leveled-up: .*KAFKA_TOPIC_REPLICATION"):
        await ensure_topics(too_many)


async def test_a_broker_of_the_tests_that_is_real_is_not_taken_for_the_embedded_one(kafka: Kafka) -> None:
    assert (await describe_cluster(settings_for(kafka.bootstrap_servers))).is_embedded is not kafka.real


async def test_an_end_counts_every_record_of_the_last_batch() -> None:
    """The embedded broker reports a lower end for a batch of several records. A run would never be confirmed."""
    async with EmbeddedBroker() as broker:
        settings = Settings(_env_file=None, kafka_bootstrap_servers=broker.bootstrap_servers, kafka_topic_partitions=2)
        await ensure_topics(settings)
        first = TopicPartition(EVENT_TOPICS[0], 0)
        async with EndOffsets(settings) as offsets:
            ends = [(await offsets.read())[first]]
            for number in (1, 3, 2):
                await _publish(broker, first, number)
                ends.append((await offsets.read())[first])
            everything = await offsets.read()
    assert ends == [0, 1, 4, 6]
    assert sum(everything.values()) == 6


async def _publish(broker: EmbeddedBroker, where: TopicPartition, number: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        batch = producer.create_batch()
        for _ in range(number):
            batch.append(key=None, value=b"x", timestamp=None)
        batch.close()
        await (await producer.send_batch(batch, where.topic, partition=where.partition))
