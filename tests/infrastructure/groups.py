"""Consumer groups as an operator sees and changes them, while no consumer of theirs runs."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.group import LeaveGroupRequest

from tests.infrastructure.topics import _admin

_MEMBERS = 5
"""Where a described group has its members: error, group, state, protocol type, protocol, members."""


async def committed(bootstrap_servers: str, group: str) -> dict[TopicPartition, int]:
    """The offsets that the group has committed."""
    async with _admin(bootstrap_servers) as client:
        return {tp: found.offset for tp, found in (await client.list_consumer_group_offsets(group)).items()}


async def members(bootstrap_servers: str, group: str) -> list[str]:
    """The ids of the group's members, those among them that died and were not missed yet."""
    async with _admin(bootstrap_servers) as client:
        return await _members(client, group)


async def bury(bootstrap_servers: str, name: str) -> None:
    """Say in the name of every member of every group whose name begins with `name` that it leaves.

    After a `kill -9` nobody then waits for session timeouts.
    """
    async with _admin(bootstrap_servers) as client:
        for group, _ in await client.list_consumer_groups():
            if group.startswith(name):
                node = await client.find_coordinator(group)
                for member in await _members(client, group):
                    await client._send_request_to_node(node, LeaveGroupRequest(group, member))


async def reset(bootstrap_servers: str, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Set the group's offsets; it must have no members."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(offsets))
        await consumer.commit(dict(offsets))
    finally:
        await consumer.stop()


async def _members(client: AIOKafkaAdminClient, group: str) -> list[str]:
    (answer,) = await client.describe_consumer_groups([group])
    return [member[0] for described in answer.groups for member in described[_MEMBERS]]
