"""Numbered events in the outbox and in a topic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from aiokafka import AIOKafkaConsumer
from sqlalchemy.ext.asyncio import AsyncEngine

from events import LEVEL_SYNCED_TOPIC, LevelSynced
from service.outbox.put import put
from tests.support.tables import count

Numbered = tuple[int, int]
"""A user (the key) and a number that rises with each of the user's events."""


def event(user: int, number: int) -> LevelSynced:
    return LevelSynced(user_id=user, specialization="PLAYER", target="license", new_level=number, cause="a test")


async def put_numbered(engine: AsyncEngine, numbered: Iterable[Numbered]) -> None:
    """Put events into the outbox in one transaction."""
    async with engine.begin() as conn:
        await put(conn, [event(user, number) for user, number in numbered])


async def pending(engine: AsyncEngine) -> int:
    """Return the number of rows in the outbox."""
    return await count(engine, "levelsync.outbox")


async def delivered(bootstrap_servers: str) -> list[Numbered]:
    """Return the topic's events from its beginning to its present end. The events of a user are in order."""
    async with AIOKafkaConsumer(
        LEVEL_SYNCED_TOPIC, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        read: list[Numbered] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                read += [(int(record.key), json.loads(record.value)["new_level"]) for record in records]
        assert ends
        return read


def first_deliveries(read: Sequence[Numbered]) -> dict[int, list[int]]:
    """Return the numbers of each user in the order of their first deliveries."""
    firsts: dict[int, list[int]] = {}
    for user, number in dict.fromkeys(read):
        firsts.setdefault(user, []).append(number)
    return firsts
