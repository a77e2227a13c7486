"""Topics that are deleted and created again while the service runs (law 3, "Positions")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support import applying
from tests.support.applying import rise, running
from tests.support.servers import Kafka
from tests.support.tables import licenses
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker


@asynccontextmanager
async def licenses_are_locked(engine: AsyncEngine) -> AsyncIterator[None]:
    """The application holds the table: whatever batch is read waits in the appliers' hands."""
    async with engine.connect() as conn:
        await conn.execute(text("LOCK TABLE user_licenses IN EXCLUSIVE MODE"))
        yield


async def a_batch_waits(engine: AsyncEngine) -> bool:
    waiting = await applying.count(
        engine, "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return waiting > 0


@pytest.mark.parametrize("refill", [20, 60])
async def test_a_topic_recreated_with_a_batch_in_hand_is_read_from_its_beginning(
    database: AsyncEngine, settings: Settings, kafka: Kafka, refill: int
) -> None:
    """The new topic may be shorter than the old position, or have passed it already."""
    send = settings.kafka_bootstrap_servers
    async with running(settings):
        async with licenses_are_locked(database):
            await publish(send, [rise(user, 3, 0) for user in range(1, 41)])
            await eventually(lambda: a_batch_waits(database))
            await kafka.fresh_topics()
            await publish(send, [rise(user, 5, 0) for user in range(101, 101 + refill)])
        await applying.caught_up(settings, database)
    found = await licenses(database)
    assert {user for user, _ in found if user > 100} == set(range(101, 101 + refill))


async def test_topics_recreated_and_refilled_at_once_lose_no_record(
    database: AsyncEngine, settings: Settings, kafka: Kafka
) -> None:
    """An idle service has fetched ahead, and asks for the old position of the new topic."""
    send = settings.kafka_bootstrap_servers
    async with running(settings):
        await publish(send, [rise(user, 3, user % 4) for user in range(1, 81)])
        await applying.caught_up(settings, database)
        for level in (4, 5, 6):
            await kafka.fresh_topics()
            await publish(send, [rise(user, level, user % 4) for user in range(1, 161)])
            await applying.caught_up(settings, database)
            assert await licenses(database) == {(user, "PLAYER"): level for user in range(1, 161)}


async def test_a_position_keeps_the_id_of_its_topic(database: AsyncEngine, settings: Settings, kafka: Kafka) -> None:
    """Ids as Kafka's own tools print them, and another one for the topic that was created again."""
    ids = "SELECT DISTINCT topic_id FROM levelsync.applied_offsets WHERE topic = 'progress.leveled-up'"
    async with running(settings):
        await publish(settings.kafka_bootstrap_servers, [rise(1, 3, 0)])
        await applying.caught_up(settings, database)
        [(first,)] = await applying.rows(database, ids)
        assert len(first) == 22
        await kafka.fresh_topics()
        await publish(settings.kafka_bootstrap_servers, [rise(1, 4, 0)])
        await applying.caught_up(settings, database)
        [(second,)] = await applying.rows(database, ids)
    assert second not in {"", first}
