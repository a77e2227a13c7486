"""End offsets of the event topics, and the lag of the consumers behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaTimeoutError

from events import LICENSE_ADVANCED_TOPIC, PROGRESS_LEVELED_UP_TOPIC
from service.settings import Settings
from service.stream.connection import Cluster, admin_client, close, connection_options, read_cluster
from service.stream.protocol import read_topic_ids

_SECONDS = 10.0
_POLL_MS = 100


async def ends_by_fetching(
    client: AIOKafkaConsumer, reported: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Return the high watermarks from the answers to a fetch of each partition's last batch.

    The embedded broker reports correct ones only there.

    Raises:
        KafkaTimeoutError: The broker did not return them within ten seconds.
    """
    ends = dict(reported)
    missing = {partition for partition, end in reported.items() if end > 0}
    if not missing:
        return ends
    client.assign(list(missing))
    for partition in missing:
        client.seek(partition, reported[partition] - 1)
    try:
        async with asyncio.timeout(_SECONDS):
            while missing:
                await client.getmany(timeout_ms=_POLL_MS)
                known = {p: end for p in missing if (end := client.highwater(p)) is not None}
                ends |= known
                missing -= known.keys()
    except TimeoutError as error:
        raise KafkaTimeoutError from error
    finally:
        client.unsubscribe()
    return ends


EVENT_TOPICS = (PROGRESS_LEVELED_UP_TOPIC, LICENSE_ADVANCED_TOPIC)


class EndOffsets:
    """Reads the end offsets of the event topics over its own clients, without a group.

    These are the high watermarks, or with `read_committed` the last stable offsets.
    """

    def __init__(self, settings: Settings, *, isolation_level: str = "read_uncommitted") -> None:
        self._settings = settings
        self._isolation_level = isolation_level
        self._open = AsyncExitStack()

    async def __aenter__(self) -> EndOffsets:
        async with AsyncExitStack() as opening:  # closes the first client if the second cannot be opened
            self._admin: AIOKafkaAdminClient = await opening.enter_async_context(admin_client(self._settings))
            self._client = AIOKafkaConsumer(
                **connection_options(self._settings),
                enable_auto_commit=False,
                request_timeout_ms=10_000,
                isolation_level=self._isolation_level,
            )
            opening.push_async_callback(self._stop)
            await self._client.start()
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def _stop(self) -> None:
        try:
            await self._client.stop()
        finally:
            await close(self._client._client)  # noqa: SLF001 - a stop may be interrupted

    async def read(self) -> dict[TopicPartition, int]:
        """Return the end offset of every partition of both topics, after reading the metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """
        return await self.read_of(await self.read_cluster())

    async def read_of(self, cluster: Cluster) -> dict[TopicPartition, int]:
        """Return the same as `read` for a cluster that was just described."""
        partitions = [
            TopicPartition(topic, number)
            for topic in EVENT_TOPICS
            for number in range(cluster.partitions.get(topic, 0))
        ]
        ends = await self._client.end_offsets(partitions) if partitions else {}
        return await ends_by_fetching(self._client, ends) if cluster.is_embedded else ends

    async def read_cluster(self) -> Cluster:
        """Return the current description of the cluster.

        Raises:
            KafkaError: Kafka does not answer.
        """
        return await read_cluster(self._admin)

    async def read_topic_ids(self, cluster: Cluster) -> dict[str, str]:
        """Return the id of each event topic of the cluster, or '' if the cluster has no topic ids.

        Raises:
            KafkaError: Kafka does not answer, or a topic was just deleted.
        """
        present = [topic for topic in EVENT_TOPICS if topic in cluster.partitions]
        return await read_topic_ids(self._client._client, present) if present else {}  # noqa: SLF001 - as in protocol

    async def read_starts(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the first offset that each partition still contains.

        Raises:
            KafkaError: Kafka does not answer.
        """
        return await self._client.beginning_offsets(partitions) if partitions else {}


def lag(ends: Mapping[TopicPartition, int], applied: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Return how many records of each partition are not applied yet. Without a position, all of its offsets count."""
    return {partition: max(0, end - applied.get(partition, 0)) for partition, end in ends.items()}
