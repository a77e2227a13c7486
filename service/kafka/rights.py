"""Whether the Kafka user may do what the service does (deploy/kafka/acls.sh), found out without writing."""

from __future__ import annotations

from collections.abc import Iterator

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError

from events import (
    LEVEL_SYNCED_TOPIC,
    LICENSE_ADVANCED_TOPIC,
    PROGRESS_LEVELED_UP_TOPIC,
    RECONCILE_CHUNKS_TOPIC,
    RECONCILE_COMPLETED_TOPIC,
    RECONCILE_REQUESTED_TOPIC,
)
from service.kafka.cluster import admin_client
from service.kafka.protocol import read_topic_rights
from service.settings import Settings

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
