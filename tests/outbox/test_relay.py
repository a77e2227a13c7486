"""The relay on a real broker and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import LEVEL_SYNCED_TOPIC
from service.outbox import relay
from service.outbox.put import OutboxRow, put
from service.outbox.relay import Relay
from service.settings import Settings
from service.store.tables import outbox
from service.stream.background import in_background
from service.telemetry.health import Health
from tests.support.outbox import delivered, event, first_deliveries, pending, put_numbered
from tests.support.process import Make
from tests.support.servers import Kafka
from tests.support.tables import read
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("topics")
NEVER = 600.0
_HOLDERS = """
    SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
     WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()
"""


@contextlib.asynccontextmanager
async def relaying(
    engine: AsyncEngine, settings: Settings, health: Health | None = None, poll_every: float = NEVER
) -> AsyncIterator[None]:
    """Run a relay that hardly ever looks without a notification."""
    health = health or Health()
    async with in_background(Relay(engine, settings, health, poll_every=poll_every).run, "relay", health):
        yield


async def holders(engine: AsyncEngine) -> list[int]:
    return [pid for (pid,) in await read(engine, _HOLDERS)]


async def until_left(engine: AsyncEngine, ids: list[int]) -> None:
    async def is_so() -> bool:
        return [row.id for row in await read(engine, "SELECT id FROM levelsync.outbox ORDER BY id")] == ids

    await eventually(is_so)


async def add(conn: AsyncConnection, value: bytes, topic: str = LEVEL_SYNCED_TOPIC, user: int = 1) -> int:
    """Insert a row without a notification, unlike `put`."""
    row = insert(outbox).values(topic=topic, key=b"%d" % user, value=value, headers=[]).returning(outbox.c.id)
    return int((await conn.execute(row)).scalar_one())


async def test_a_commit_wakes_it_at_once(engine: AsyncEngine, settings: Settings, kafka: Kafka) -> None:
    """Its next own look is ten minutes away."""
    async with relaying(engine, settings):
        await put_numbered(engine, [(1, 1)])
        await until_left(engine, [])
        begun = time.monotonic()
        await put_numbered(engine, [(1, 2), (2, 1)])
        await until_left(engine, [])
        assert time.monotonic() - begun < 30
    assert first_deliveries(await delivered(kafka.bootstrap_servers)) == {1: [1, 2], 2: [1]}


async def test_it_looks_by_itself_too(engine: AsyncEngine, settings: Settings) -> None:
    """A notification can be lost, for example when PostgreSQL fails over."""
    async with relaying(engine, settings, poll_every=0.1):
        await put_numbered(engine, [(1, 1)])
        await until_left(engine, [])
        async with engine.begin() as conn:
            await add(conn, b'{"new_level": 2}')
        await until_left(engine, [])


async def test_a_lower_id_that_is_committed_later_is_published(
    engine: AsyncEngine, settings: Settings, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are assigned before the commit. The relay deletes the rows that it published, not every id up to the last."""
    async with engine.connect() as late, relaying(engine, settings):
        await put(late, [event(1, 1)])

        publish = relay.publish

        async def publish_and_let_it_commit(producer: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> relay.Delivery:
            delivery = await publish(producer, rows)
            await late.commit()  # after the batch was read, before it is deleted
            return delivery

        monkeypatch.setattr(relay, "publish", publish_and_let_it_commit)
        await put_numbered(engine, [(2, 1)])
        await until_left(engine, [])
    assert sorted(await delivered(kafka.bootstrap_servers)) == [(1, 1), (2, 1)]


async def test_a_row_too_large_for_kafka_stops_no_other(engine: AsyncEngine, settings: Settings, kafka: Kafka) -> None:
    """It stays. All other rows are delivered, those of its key too."""
    async with engine.begin() as conn:
        await put(conn, [event(1, 1)])
        too_large = await add(conn, b" " * 2_000_000)
        await put(conn, [event(1, 2), event(2, 1)])
    async with relaying(engine, settings):
        await until_left(engine, [too_large])
    assert first_deliveries(await delivered(kafka.bootstrap_servers)) == {1: [1, 2], 2: [1]}


async def test_a_topic_that_takes_nothing_does_not_stop_the_others(
    engine: AsyncEngine, settings: Settings, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "TOPIC_TIMEOUT", 0.5)
    monkeypatch.setattr(relay, "TOPIC_SECONDS", NEVER)
    async with engine.begin() as conn:
        waiting = await add(conn, b"{}", topic="not a name for a topic")
        await put(conn, [event(1, 1)])
    health = Health()
    async with relaying(engine, settings, health):
        await until_left(engine, [waiting])
        await eventually(lambda: "not a name for a topic" in str(health.by_component().get("relay")))
    assert await delivered(kafka.bootstrap_servers) == [(1, 1)]


async def test_another_relay_takes_over_when_a_connection_is_lost(engine: AsyncEngine, settings: Settings) -> None:
    """The lock belongs to the session that PostgreSQL ends. A stop leaves no lock behind."""

    async def is_nobodys() -> bool:
        return await holders(engine) == []

    async with relaying(engine, settings), relaying(engine, settings):
        await put_numbered(engine, [(1, 1)])
        await until_left(engine, [])
        (before,) = await holders(engine)
        await read(engine, "SELECT pg_terminate_backend(:pid)", pid=before)
        await put_numbered(engine, [(1, 2)])
        await until_left(engine, [])
        (after,) = await holders(engine)
        assert after != before
    await eventually(is_nobodys)


@pytest.mark.real_broker
async def test_an_outage_of_kafka_is_waited_out(
    engine: AsyncEngine, settings: Settings, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kafka.can_restart:
        pytest.skip("this broker is not ours to stop")
    monkeypatch.setattr(relay, "DELIVERY_TIMEOUT", 1.0)
    health = Health()
    async with relaying(engine, settings, health):
        await put_numbered(engine, [(1, 1), (2, 1)])
        await until_left(engine, [])
        await kafka.stop()
        await put_numbered(engine, [(1, 2), (1, 3), (2, 2)])
        await eventually(lambda: "kafka_unavailable" in str(health.by_component().get("relay")))
        assert await pending(engine) == 3
        await kafka.start()
        await until_left(engine, [])
        await eventually(lambda: health.ready)
    assert first_deliveries(await delivered(kafka.bootstrap_servers)) == {1: [1, 2, 3], 2: [1, 2]}


USERS, EVENTS = range(1, 21), 200
TAKEOVER_SECONDS = 5.0


async def test_a_killed_relay_loses_nothing_and_no_key_loses_its_order(
    engine: AsyncEngine, kafka: Kafka, levelsync_process: Make
) -> None:
    """The other takes over within seconds. Every event arrives, and a key's first deliveries are in order."""
    first, second = (levelsync_process(arguments=("serve", "--roles", "relay")) for _ in range(2))
    await first.start()
    await eventually(lambda: "relaying the outbox" in first.output)
    await second.start()
    await put_numbered(engine, [(user, number) for number in range(1, EVENTS + 1) for user in USERS])
    await eventually(lambda: _is_below(engine, len(USERS) * EVENTS))
    first.kill()
    killed_at, left = time.monotonic(), await pending(engine)
    assert left > 0
    await eventually(lambda: _is_below(engine, left))
    assert time.monotonic() - killed_at < TAKEOVER_SECONDS
    await eventually(lambda: _is_below(engine, 1))
    everything = {user: list(range(1, EVENTS + 1)) for user in USERS}
    assert first_deliveries(await delivered(kafka.bootstrap_servers)) == everything
    assert "relaying the outbox" in second.output


async def _is_below(engine: AsyncEngine, number: int) -> bool:
    return await pending(engine) < number
