"""Where partitions end, asked of a broker."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer, TopicPartition

from service.local import EmbeddedBroker
from service.settings import Settings
from service.stream.lag import EVENT_TOPICS, EndOffsets
from service.stream.topics import ensure_topics


async def test_an_end_counts_every_record_of_the_last_batch() -> None:
    """The embedded broker tells one too small for a batch of several records: a run would never be confirmed."""
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
    """Publish records in one batch."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        batch = producer.create_batch()
        for _ in range(number):
            batch.append(key=None, value=b"x", timestamp=None)
        batch.close()
        await (await producer.send_batch(batch, where.topic, partition=where.partition))
