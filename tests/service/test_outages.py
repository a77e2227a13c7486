"""PostgreSQL, then Kafka, is away while events are published. The soak tests have outages of ten minutes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from service.process.runtime import Service
from service.settings import Settings
from tests.support import applying, servers
from tests.support.applying import running
from tests.support.load import Load, by_slot, make_load
from tests.support.model import Meant
from tests.support.published import Setup
from tests.support.records import as_sent
from tests.support.servers import Kafka, Postgres
from tests.support.topics import send
from tests.support.waiting import eventually

pytestmark = [pytest.mark.real_broker, pytest.mark.soak]
POSTGRES_AWAY, KAFKA_AWAY = 5.0, 12.0
"""Seconds. Kafka is away for longer than a member's session of ten seconds."""
BACK_WITHIN = 10.0
EVENTS_A_SECOND = 50


@pytest.fixture
async def settings(own_postgres: Postgres, settings: Settings) -> Settings:
    """The service's database is on a server of the test's own."""
    url = own_postgres.url_of(await servers.make_template(own_postgres))
    return settings.model_copy(update={"database_url": SecretStr(url)})


async def test_outages_lose_nothing_make_no_dead_letter_and_end_by_themselves(
    setup: Setup, own_postgres: Postgres, kafka: Kafka, log: list[Any]
) -> None:
    """Law 4: during an outage /readyz answers 503 with the reason and /livez 200. Work goes on seconds after it."""
    if not kafka.can_restart:
        pytest.skip("the broker is not ours to stop")
    async with running(setup.settings) as service:
        async with trickle(setup, make_load(Load(5000, 100, seed=16))):
            await setup.wait_applied(20)
            await _away(service, own_postgres, POSTGRES_AWAY, "postgresql")
            await setup.engine.dispose()  # the test's own connections to the stopped server
            await setup.wait_applied(setup.published, BACK_WITHIN)
            await _away(service, kafka, KAFKA_AWAY, "kafka")
            await setup.wait_applied(setup.published, BACK_WITHIN)
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
    assert not [line for line in log if line["event"] == "dead letters"]
    assert any(line["event"] == "batch is retried" and line["cause"] == "database_unavailable" for line in log)


async def _away(service: Service, server: Kafka | Postgres, seconds: float, component: str) -> None:
    """Stop a server, check what the service reports about it, and start it again."""
    await server.stop()
    gone = asyncio.create_task(asyncio.sleep(seconds))
    await eventually(lambda: applying.names(service, component))
    assert (await applying.get(service, "/livez"))[0] == 200
    await gone
    assert (await applying.get(service, "/livez"))[0] == 200
    assert await applying.names(service, component)
    await server.start()
    await eventually(lambda: applying.is_well(service), BACK_WITHIN)


@contextlib.asynccontextmanager
async def trickle(setup: Setup, meant: list[Meant]) -> AsyncIterator[None]:
    """Publish slowly, each record once and in order, through the broker's outage. At the end Kafka has them all."""
    producer = AIOKafkaProducer(
        bootstrap_servers=setup.settings.kafka_bootstrap_servers, enable_idempotence=True, request_timeout_ms=60_000
    )
    await producer.start()
    sending = asyncio.create_task(_send(producer, setup, meant))
    try:
        yield
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        await producer.stop()  # sends what waits


async def _send(producer: AIOKafkaProducer, setup: Setup, meant: list[Meant]) -> None:
    for one in meant:
        (slot,) = by_slot([one])
        setup.slots.setdefault(slot, []).append(one)
        await asyncio.shield(send(producer, as_sent(one, slot[1])))
        await asyncio.sleep(1 / EVENTS_A_SECOND)
