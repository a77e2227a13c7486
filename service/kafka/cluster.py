"""What a Kafka cluster says of itself: its id, its brokers, its topics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from service.kafka.connection import close, connection_options
from service.settings import Settings

EMBEDDED_CLUSTER_PREFIX = "levelsync-embedded-"
"""The name of every cluster of `service.embedded` begins so. It has no idempotent producer and no transactions."""


@dataclass(frozen=True)
class Cluster:
    """A cluster at one moment. `partitions` has the number of partitions of every topic."""

    id: str
    brokers: int
    partitions: dict[str, int]

    @property
    def is_embedded(self) -> bool:
        """Whether this is the broker of `levelsync up`, `levelsync demo` and the tests."""
        return self.id.startswith(EMBEDDED_CLUSTER_PREFIX)


@asynccontextmanager
async def admin_client(settings: Settings, *, timeout: float = 10) -> AsyncIterator[AIOKafkaAdminClient]:  # noqa: ASYNC109 - a request's bound
    """Open an admin client whose requests take at most `timeout` seconds each.

    Raises:
        aiokafka.errors.KafkaConnectionError: when no bootstrap server answers.
        SettingsError: as `connection_options`.
    """
    client = AIOKafkaAdminClient(**connection_options(settings), request_timeout_ms=int(timeout * 1000))
    try:
        await client.start()
        yield client
    finally:
        await close(client._client)  # noqa: SLF001 - its own close waits for the broker, however long


async def describe_cluster(settings: Settings, *, timeout: float = 10) -> Cluster:  # noqa: ASYNC109 - a request's bound
    """Ask the cluster. Topics are listed, never asked for by name: that would make a missing one.

    Raises:
        aiokafka.errors.KafkaError: when the cluster does not answer.
        SettingsError: as `connection_options`.
    """
    async with admin_client(settings, timeout=timeout) as client:
        return await read_cluster(client)


async def read_cluster(client: AIOKafkaAdminClient) -> Cluster:
    """As `describe_cluster`, over an admin client that is open already."""
    answer: dict[str, Any] = await client.describe_cluster()
    topics = await client.describe_topics()
    return Cluster(
        id=answer["cluster_id"] or "",
        brokers=len(answer["brokers"]),
        partitions={topic["topic"]: len(topic["partitions"]) for topic in topics},
    )
