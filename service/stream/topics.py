"""Create and check the topics, and find the rights that the service lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupAuthorizationFailedError, IncompatibleBrokerVersion

from events import (
    LEVEL_SYNCED_TOPIC,
    LICENSE_ADVANCED_TOPIC,
    PROGRESS_LEVELED_UP_TOPIC,
    RECONCILE_CHUNKS_TOPIC,
    RECONCILE_COMPLETED_TOPIC,
    RECONCILE_REQUESTED_TOPIC,
    TOPICS,
)
from service.settings import PREFIX, Settings
from service.stream.connection import Cluster, admin_client, read_cluster
from service.stream.protocol import read_topic_rights

_ALREADY_EXISTS = 36  # Kafka's TOPIC_ALREADY_EXISTS: another process created it first
_USUAL_REPLICATION = 3
_POLICY = "cleanup.policy"
COMPACTED = "Kafka keeps only the last event of each user there; set cleanup.policy=delete for these topics"
_POLL_SECONDS = 0.1


class TopicsError(Exception):
    """Kafka refused to create a topic. The text names the topic and Kafka's reason."""


async def ensure_topics(settings: Settings, *, timeout: float = 15) -> list[str]:  # noqa: ASYNC109 - limits a request
    """Create the missing topics of the contract if the settings allow it. Return the topics that are still missing.

    Several processes may call this at the same time. `timeout` limits each request, and the wait until the new topics
    are listed, in seconds.

    Raises:
        TopicsError: Kafka refuses, for example because of replication, rights or a policy.
        TimeoutError: Kafka accepted the request, but does not list the topics in time.
        aiokafka.errors.KafkaError: Kafka does not answer.
    """
    async with admin_client(settings, timeout=timeout) as client:
        cluster = await read_cluster(client)
        missing = missing_topics(cluster)
        if not missing or not settings.kafka_create_topics:
            return missing
        await _create(client, _new_topics(settings, missing, cluster.brokers))
        await asyncio.wait_for(_wait_for_topics(client), timeout)
    return []


async def compacted_topics(settings: Settings) -> tuple[list[str], list[str]]:
    """Return the topics of the contract that Kafka compacts, and those whose cleanup policy Kafka does not report.

    Compaction keeps only the last event of a key. The key of an event is its user, so the events of the user's other
    specializations would disappear. Kafka reports the policy only to clients with the right DescribeConfigs.

    Raises:
        KafkaError: Kafka does not answer, or cannot describe topics.
    """
    async with admin_client(settings) as client:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, {_POLICY: ""}) for topic in TOPICS]
        try:
            answers = await client.describe_configs(wanted)
        except NotImplementedError as error:
            raise IncompatibleBrokerVersion("the broker does not describe topics") from error
    resources = [resource for answer in answers for resource in answer.resources]
    policies = {
        topic: next((value or "" for name, value, *_ in entries if name == _POLICY), "")
        for error_code, _, _, topic, entries in resources
        if not error_code
    }
    compacted = [topic for topic in TOPICS if "compact" in policies.get(topic, "")]
    return compacted, [topic for topic in TOPICS if topic not in policies]


def missing_topics(cluster: Cluster) -> list[str]:
    """Return the topics of the contract that the cluster does not have."""
    return [topic for topic in TOPICS if topic not in cluster.partitions]


def _new_topics(settings: Settings, names: list[str], brokers: int) -> list[NewTopic]:
    replication = settings.kafka_topic_replication or min(_USUAL_REPLICATION, brokers)
    policy = {_POLICY: "delete"}  # the broker's default may be another policy
    return [NewTopic(name, settings.kafka_topic_partitions, replication, topic_configs=policy) for name in names]


async def _create(client: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
    answer = await client.create_topics(topics)
    refused = [
        f"{topic}: {message or f'error {code}'}"
        for topic, code, message in answer.topic_errors
        if code not in {0, _ALREADY_EXISTS}
    ]
    if refused:
        hint = f"create the topics yourself, or check {PREFIX}KAFKA_TOPIC_REPLICATION and the user's rights"
        raise TopicsError(f"Kafka refused to create {'; '.join(refused)} ({hint})")


async def _wait_for_topics(client: AIOKafkaAdminClient) -> None:
    """Wait until the broker lists the topics. The controller answers before the brokers know them."""
    while missing_topics(await read_cluster(client)):
        await asyncio.sleep(_POLL_SECONDS)


READ, WRITE, DESCRIBE_CONFIGS = 3, 4, 10
"""The numbers of operations in Kafka's ACLs."""
_NAMES = {READ: "Read", WRITE: "Write", DESCRIBE_CONFIGS: "DescribeConfigs"}
NEEDED: dict[str, tuple[int, ...]] = {
    PROGRESS_LEVELED_UP_TOPIC: (READ, WRITE, DESCRIBE_CONFIGS),
    LICENSE_ADVANCED_TOPIC: (READ, WRITE, DESCRIBE_CONFIGS),
    RECONCILE_REQUESTED_TOPIC: (READ, WRITE),
    RECONCILE_CHUNKS_TOPIC: (READ, WRITE),
    RECONCILE_COMPLETED_TOPIC: (WRITE,),
    LEVEL_SYNCED_TOPIC: (WRITE,),
}
"""The operations that the service needs on each topic. Replays of dead letters write to the two event topics."""


def groups(settings: Settings) -> tuple[str, str]:
    """Return the consumer groups of the service."""
    return settings.kafka_group_id, f"{settings.kafka_group_id}-reconcile"


async def missing_rights(settings: Settings) -> list[str] | None:
    """Return the rights that the user of these settings lacks, or None if the broker cannot report rights.

    Raises:
        aiokafka.errors.KafkaError: Kafka does not answer.
        SettingsError: The settings of the connection cannot be used.
    """
    async with admin_client(settings) as client:
        found = await read_topic_rights(client._client, list(NEEDED))  # noqa: SLF001 - aiokafka has no such request
        if found is None:
            return None
        missing_groups = [group for group in groups(settings) if not await _may_use(client, group)]
    return [*_missing(found), *(f"Read on group {group}" for group in missing_groups)]


def _missing(found: dict[str, int]) -> Iterator[str]:
    for topic, operations in NEEDED.items():
        for operation in operations:
            if topic in found and not found[topic] & 1 << operation:
                yield f"{_NAMES[operation]} on topic {topic}"


async def _may_use(client: AIOKafkaAdminClient, group: str) -> bool:
    try:
        await client.find_coordinator(group)
    except GroupAuthorizationFailedError:
        return False
    return True
