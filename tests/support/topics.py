"""Topics, consumer groups and records of tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupLoadInProgressError
from aiokafka.protocol.group import LeaveGroupRequest
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from events import TOPICS, ProgressLeveledUp
from tests.support.kafka_tools import admin, delete_groups
from tests.support.waiting import eventually

OUR_GROUPS = "levelsync"
"""Only groups whose name begins so are removed, because the cluster may have others."""


async def fresh_topics(
    bootstrap_servers: str, partitions: int, *, remove_groups: bool, keep_empty: bool = False
) -> list[str]:
    """Delete and create every topic of the contract, and wait until all of them are visible and empty.

    With `keep_empty`, topics without a record stay, because a broker needs much longer for new ones.
    """
    async with admin(bootstrap_servers) as client:
        found = await _partition_counts(client)
        same = [name for name in TOPICS if keep_empty and found.get(name) == partitions]
        new = set(TOPICS) - await _empty(bootstrap_servers, same, partitions)
        await _delete_topics(client, new & found.keys())
        if remove_groups:
            await _delete_groups(client)
        if new:
            await client.create_topics([NewTopic(name, partitions, replication_factor=1) for name in new])
            await eventually(lambda: _all_have(client, partitions))

    async def all_are_empty() -> bool:
        return await _empty(bootstrap_servers, new, partitions) == new

    await eventually(all_are_empty)
    return list(TOPICS)


async def _delete_topics(client: AIOKafkaAdminClient, names: set[str]) -> None:
    async def none_is_left() -> bool:
        return not names & (await _partition_counts(client)).keys()

    if names:
        await client.delete_topics(list(names))
        await eventually(none_is_left)


async def _all_have(client: AIOKafkaAdminClient, partitions: int) -> bool:
    counts = await _partition_counts(client)
    return all(counts.get(name) == partitions for name in TOPICS)


async def _partition_counts(client: AIOKafkaAdminClient) -> dict[str, int]:
    """Return how many partitions have a leader. Topics are listed, because a request by name would create some."""
    topics = await client.describe_topics()
    return {t["topic"]: sum(p["leader"] >= 0 for p in t["partitions"]) for t in topics}


async def _empty(bootstrap_servers: str, names: Iterable[str], partitions: int) -> set[str]:
    """Return the topics to which nothing was ever written."""
    found = await ends(bootstrap_servers, [TopicPartition(name, p) for name in names for p in range(partitions)])
    return set(names) - {tp.topic for tp, end in found.items() if end}


async def ends(bootstrap_servers: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the high watermarks of partitions."""
    if not partitions:
        return {}
    # aiokafka waits this long for each new topic.
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, retry_backoff_ms=10) as consumer:
        return dict(await consumer.end_offsets(partitions))


async def _delete_groups(client: AIOKafkaAdminClient) -> None:
    """Groups with members stay: the broker refuses to delete them."""
    loading = retry_if_exception_type(GroupLoadInProgressError)  # a broker that has just started
    async for attempt in AsyncRetrying(stop=stop_after_delay(60), wait=wait_fixed(0.1), retry=loading):
        with attempt:
            groups = await client.list_consumer_groups()
    await delete_groups(client, [name for name, _ in groups if name.startswith(OUR_GROUPS)])


_MEMBERS = 5
"""The place of the members in a described group: error, group, state, protocol type, protocol, members."""


async def committed(bootstrap_servers: str, group: str) -> dict[TopicPartition, int]:
    """The offsets that the group has committed."""
    async with admin(bootstrap_servers) as client:
        return {tp: found.offset for tp, found in (await client.list_consumer_group_offsets(group)).items()}


async def members(bootstrap_servers: str, group: str) -> list[str]:
    """Return the ids of the group's members, also of dead ones that the broker has not missed yet."""
    async with admin(bootstrap_servers) as client:
        return await _members(client, group)


async def bury(bootstrap_servers: str, name: str) -> None:
    """Remove every member of every group whose name begins with `name`.

    After a `kill -9` no test then waits for session timeouts.
    """
    async with admin(bootstrap_servers) as client:
        for group, _ in await client.list_consumer_groups():
            if group.startswith(name):
                node = await client.find_coordinator(group)
                for member in await _members(client, group):
                    await client._send_request_to_node(node, LeaveGroupRequest(group, member))


async def reset(bootstrap_servers: str, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Set the group's offsets. It must have no members."""
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as consumer:
        consumer.assign(list(offsets))
        await consumer.commit(dict(offsets))


async def _members(client: AIOKafkaAdminClient, group: str) -> list[str]:
    (answer,) = await client.describe_consumer_groups([group])
    return [member[0] for described in answer.groups for member in described[_MEMBERS]]


class Record(NamedTuple):
    """One record. `Record(*event.to_kafka())` is an event's. Without a partition the key chooses it."""

    topic: str
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int | None = None
    partition: int | None = None


Publish = Callable[..., Awaitable[list[int]]]
"""The fixture `publish`."""


def raised(user: int, to_level: int = 7) -> Record:
    """Return the record of a rise in PLAYER."""
    return Record(*ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=to_level).to_kafka())


async def publish(bootstrap_servers: str, records: Iterable[Sequence[Any]], **producer_options: Any) -> list[int]:
    """Send all records, in their order, and wait until the broker has them; returns their offsets.

    Raises:
        aiokafka.errors.KafkaError: a record was refused.
    """
    options: dict[str, Any] = {"acks": "all", "linger_ms": 5, "max_batch_size": 262_144, "max_request_size": 20_000_000}
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, **(options | producer_options)) as producer:
        acknowledged = [await send(producer, Record(*record)) for record in records]
        return [metadata.offset for metadata in await asyncio.gather(*acknowledged)]


async def send(producer: AIOKafkaProducer, record: Record) -> Any:
    """Hand one record to a producer; returns the future of the broker's answer."""
    return await producer.send(
        record.topic,
        record.value,
        record.key,
        partition=record.partition,
        timestamp_ms=record.timestamp_ms,
        headers=list(record.headers),
    )


_BATCH_BYTES = 900_000
"""Below Kafka's own limit of 1 MiB for a batch."""


class Raw(Protocol):
    """The fields of a record that are sent, as aiokafka's ConsumerRecord has them."""

    key: Any
    value: Any
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


async def fill(bootstrap_servers: str, slots: Mapping[tuple[str, int], Iterable[Raw]]) -> None:
    """Send the records of each (topic, partition) in their order, and wait until the broker has them all.

    Raises:
        aiokafka.errors.KafkaError: a batch was refused.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", max_batch_size=_BATCH_BYTES)
    try:
        await producer.start()
        await asyncio.gather(*(_fill(producer, *slot, records) for slot, records in slots.items()))
    finally:
        await producer.stop()


async def _fill(producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[Raw]) -> None:
    sent, batch = [], producer.create_batch()
    for record in records:
        if _append(batch, record) is None:  # full
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            _append(batch, record)
    if batch.record_count():
        sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)


def _append(batch: Any, record: Raw) -> Any:
    return batch.append(key=record.key, value=record.value, timestamp=record.timestamp, headers=list(record.headers))
