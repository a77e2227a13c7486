"""The topics: created when missing, checked, and what the service may do with them."""

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

_ALREADY_EXISTS = 36  # Kafka's TOPIC_ALREADY_EXISTS: somebody else was faster
_USUAL_REPLICATION = 3
_POLICY = "cleanup.policy"
COMPACTED = "Kafka keeps only the last event of each user there; set cleanup.policy=delete for these topics"
_POLL_SECONDS = 0.1


class TopicsError(Exception):
    """Kafka refused to make a topic. The text has the topic and Kafka's reason."""


async def ensure_topics(settings: Settings, *, timeout: float = 15) -> list[str]:  # noqa: ASYNC109 - a request's bound
    """Make the topics of the contract that are missing, if the settings allow it; return those still missing.

    Several processes may do this at once. With `timeout` seconds a request and for the new topics to appear.

    Raises:
        TopicsError: when Kafka refuses (replication, rights, a policy).
        TimeoutError: when Kafka took the request and does not show the topics in time.
        aiokafka.errors.KafkaError: when Kafka does not answer.
    """
    async with admin_client(settings, timeout=timeout) as client:
        cluster = await read_cluster(client)
        missing = missing_topics(cluster)
        if not missing or not settings.kafka_create_topics:
            return missing
        await _create(client, _new_topics(settings, missing, cluster.brokers))
        await asyncio.wait_for(_appear(client), timeout)
    return []


async def compacted_topics(settings: Settings) -> tuple[list[str], list[str]]:
    """Return the topics of the contract that Kafka compacts, and those of which it does not say whether it does.

    The key of an event is its user: where only the last event of a key is kept, those of the user's other
    specializations disappear. Kafka does not say it without the right DescribeConfigs.

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
    """The topics of the contract that the cluster does not have."""
    return [topic for topic in TOPICS if topic not in cluster.partitions]


def _new_topics(settings: Settings, names: list[str], brokers: int) -> list[NewTopic]:
    replication = settings.kafka_topic_replication or min(_USUAL_REPLICATION, brokers)
    policy = {_POLICY: "delete"}  # whatever the broker's default is
    return [NewTopic(name, settings.kafka_topic_partitions, replication, topic_configs=policy) for name in names]


async def _create(client: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
    answer = await client.create_topics(topics)
    refused = [
        f"{topic}: {message or f'error {code}'}"
        for topic, code, message in answer.topic_errors
        if code not in {0, _ALREADY_EXISTS}
    ]
    if refused:
        hint = f"make the topics yourself, or see {PREFIX}KAFKA_TOPIC_REPLICATION and the user's rights"
        raise TopicsError(f"Kafka refused to make {'; '.join(refused)} ({hint})")


async def _appear(client: AIOKafkaAdminClient) -> None:
    """Wait until the broker shows the topics: the controller answers a moment before the brokers know."""
    while missing_topics(await read_cluster(client)):
        await asyncio.sleep(_POLL_SECONDS)


READ, WRITE, DESCRIBE_CONFIGS = 3, 4, 10
"""Numbers of operations in Kafka's ACLs."""
_NAMES = {READ: "Read", WRITE: "Write", DESCRIBE_CONFIGS: "DescribeConfigs"}
NEEDED: dict[str, tuple[int, ...]] = {
    PROGRESS_LEVELED_UP_TOPIC: (READ, WRITE, DESCRIBE_CONFIGS),
    LICENSE_ADVANCED_TOPIC: (READ, WRITE, DESCRIBE_CONFIGS),
    RECONCILE_REQUESTED_TOPIC: (READ, WRITE),
    RECONCILE_CHUNKS_TOPIC: (READ, WRITE),
    RECONCILE_COMPLETED_TOPIC: (WRITE,),
    LEVEL_SYNCED_TOPIC: (WRITE,),
}
"""Writing to the two event topics is for replays of dead letters."""


def groups(settings: Settings) -> tuple[str, str]:
    """Give the consumer groups of the service."""
    return settings.kafka_group_id, f"{settings.kafka_group_id}-reconcile"


async def missing_rights(settings: Settings) -> list[str] | None:
    """List the rights that the user of these settings lacks; None where the broker cannot say.

    Raises:
        aiokafka.errors.KafkaError: when Kafka does not answer.
        SettingsError: as `connection_options`.
    """
    async with admin_client(settings) as client:
        found = await read_topic_rights(client._client, list(NEEDED))  # noqa: SLF001 - aiokafka has no other way
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
