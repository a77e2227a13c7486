"""The topics of the contract, made anew for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import DeleteGroupsRequest

from events import TOPICS
from tests.infrastructure.waiting import eventually

OUR_GROUPS = "levelsync"
"""Groups are removed when their name begins so: the cluster may be somebody's own."""


async def fresh_topics(bootstrap_servers: str, partitions: int, *, remove_groups: bool) -> list[str]:
    """Delete and make every topic of the contract, and wait until all of it can be seen, empty."""
    async with _admin(bootstrap_servers) as client:
        await _delete_topics(client)
        if remove_groups:
            await _delete_groups(client)
        await client.create_topics([NewTopic(name, partitions, replication_factor=1) for name in TOPICS])
        await eventually(lambda: _all_have(client, partitions))
    await eventually(lambda: _are_empty(bootstrap_servers, partitions))
    return list(TOPICS)


@asynccontextmanager
async def _admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=15_000)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def _delete_topics(client: AIOKafkaAdminClient) -> None:
    present = [name for name in TOPICS if name in await _partition_counts(client)]
    if present:
        await client.delete_topics(present)
        await eventually(lambda: _none_is_left(client))


async def _none_is_left(client: AIOKafkaAdminClient) -> bool:
    return not set(TOPICS) & set(await _partition_counts(client))


async def _all_have(client: AIOKafkaAdminClient, partitions: int) -> bool:
    counts = await _partition_counts(client)
    return all(counts.get(name) == partitions for name in TOPICS)


async def _partition_counts(client: AIOKafkaAdminClient) -> dict[str, int]:
    """Partitions that have a leader. Topics are listed, not asked for by name: some brokers would make them."""
    topics = await client.describe_topics()
    return {t["topic"]: sum(p["leader"] >= 0 for p in t["partitions"]) for t in topics}


async def _are_empty(bootstrap_servers: str, partitions: int) -> bool:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, retry_backoff_ms=10)  # a wait for each new topic
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(name, p) for name in TOPICS for p in range(partitions)])
    finally:
        await consumer.stop()
    return not any(ends.values())


async def _delete_groups(client: AIOKafkaAdminClient) -> None:
    """Groups with members stay: the broker refuses to delete them. aiokafka has no method for this request."""
    for name, _ in await client.list_consumer_groups():
        if name.startswith(OUR_GROUPS):
            node = await client.find_coordinator(name)
            await client._send_request_to_node(node, DeleteGroupsRequest([name]))
