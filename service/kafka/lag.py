"""How far the topics of events reach, asked of Kafka itself (a stuck consumer's own idea of it goes stale)."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from aiokafka import AIOKafkaConsumer, TopicPartition

from events import LICENSE_ADVANCED_TOPIC, PROGRESS_LEVELED_UP_TOPIC
from service.kafka.cluster import admin_client, read_cluster
from service.kafka.connection import connection_options
from service.settings import Settings

EVENT_TOPICS = (PROGRESS_LEVELED_UP_TOPIC, LICENSE_ADVANCED_TOPIC)


class EndOffsets:
    """Reads high watermarks over a client of its own, without a group; with `read_committed`, last stable offsets."""

    def __init__(self, settings: Settings, *, isolation_level: str = "read_uncommitted") -> None:
        self._settings = settings
        self._client = AIOKafkaConsumer(
            **connection_options(settings),
            enable_auto_commit=False,
            request_timeout_ms=10_000,
            isolation_level=isolation_level,
        )

    async def __aenter__(self) -> EndOffsets:
        try:
            await self._client.start()
        except BaseException:  # a client that did not start holds connections all the same
            await self._client.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.stop()

    async def read(self) -> dict[TopicPartition, int]:
        """The end offset of every partition of both topics, on fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """
        async with admin_client(self._settings) as admin:
            cluster = await read_cluster(admin)
        partitions = [
            TopicPartition(topic, number)
            for topic in EVENT_TOPICS
            for number in range(cluster.partitions.get(topic, 0))
        ]
        return await self._client.end_offsets(partitions) if partitions else {}

    async def read_starts(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset that each partition still holds.

        Raises:
            KafkaError: Kafka does not answer.
        """
        return await self._client.beginning_offsets(partitions) if partitions else {}


def lag(ends: Mapping[TopicPartition, int], applied: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Records of each partition that are not applied yet; one that never started counts whole."""
    return {partition: max(0, end - applied.get(partition, 0)) for partition, end in ends.items()}
