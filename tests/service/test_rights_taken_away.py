"""Rights that are revoked and granted again: the service retries visibly and other topics go on (law 4)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ReconcileRequested
from service.outbox.put import put
from service.process import watch
from service.process.runtime import Service
from service.settings import Settings
from service.stream.connection import admin_client
from tests.support import applying
from tests.support.apache_kafka import GuardedKafka
from tests.support.applying import rise, running
from tests.support.model import ADVANCED, LEVELED_UP
from tests.support.tables import count, empty_tables, read
from tests.support.topics import fresh_topics, publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
TOPIC, GROUP, CLUSTER = 2, 3, 4
ALL, READ, WRITE, CREATE = 2, 3, 4, 5
EVERYTHING_ON_THE_CLUSTER = (CLUSTER, "kafka-cluster", ALL)
"""It includes DescribeCluster, IdempotentWrite and Create."""
DENY, ALLOW = 2, 3
LITERAL = 3
Right = tuple[int, str, int]
"""A resource's type, its name, and the operation."""
RECOVERY = 30.0
"""Seconds from the end of a fault (semantics, "Passing faults")."""


@pytest.fixture
async def operator(settings: Settings, guarded_kafka: GuardedKafka, engine: AsyncEngine) -> Settings:
    """Settings of an operator, who may do everything. Topics and tables are empty."""
    await fresh_topics(guarded_kafka.bootstrap_servers, 4, remove_groups=True)
    await empty_tables(engine)
    made = settings.model_copy(update={"kafka_bootstrap_servers": guarded_kafka.bootstrap_servers})
    for kind in (TOPIC, GROUP):
        await change(made, CreateAclsRequest, (kind, "*", ALL), ALLOW)
    return made


@pytest.fixture
def guest(operator: Settings, guarded_kafka: GuardedKafka) -> Settings:
    """The service's settings."""
    return operator.model_copy(update=guarded_kafka.access)


async def change(operator: Settings, request: type, right: Right, permission: int) -> None:
    kind, name, operation = right
    async with admin_client(operator) as client:
        node = client._client.get_random_node()
        rule = request(kind, name, LITERAL, "User:levelsync", "*", operation, permission)
        await client._send_request_to_node(node, rule)


@asynccontextmanager
async def denied(operator: Settings, right: Right) -> AsyncIterator[None]:
    """Deny a right inside the block."""
    await change(operator, CreateAclsRequest, right, DENY)
    try:
        yield
    finally:
        await change(operator, DeleteAclsRequest, right, DENY)


async def send(operator: Settings, level: int, kind: str = LEVELED_UP) -> None:
    await publish(operator.kafka_bootstrap_servers, [rise(user, level, user % 4, kind) for user in range(1, 9)])


async def levels(engine: AsyncEngine, table: str) -> set[int]:
    return {level for (level,) in await read(engine, f"SELECT current_level FROM {table}")}


async def retries(service: Service) -> float:
    found = await applying.metrics(service)
    return found.get(("levelsync_retries_total", applying.labels(cause="kafka_unavailable")), 0.0)


async def retried_more(service: Service, than: float) -> bool:
    return await retries(service) > than


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the service when a consumer stands still for four seconds."""
    for bound in ("STALL_SECONDS", "BEGIN_SECONDS"):
        monkeypatch.setattr(watch, bound, 4.0)


async def until(engine: AsyncEngine, level: int, table: str = "user_licenses") -> None:
    async def reached() -> bool:
        assert await levels(engine, table) == {level}
        return True

    await eventually(reached, RECOVERY)


@pytest.mark.soak
@pytest.mark.usefixtures("impatient")
async def test_a_group_that_may_not_be_read_for_a_while_is_joined_again(
    engine: AsyncEngine, operator: Settings, guest: Settings
) -> None:
    """For longer than its session: aiokafka's heartbeat then ends for good, and the group forgets the member."""
    async with running(guest) as service:
        await send(operator, 2)
        await until(engine, 2)
        before = await retries(service)
        async with denied(operator, (GROUP, guest.kafka_group_id, READ)):
            began = time.monotonic()
            await eventually(lambda: applying.names(service, "GroupAuthorizationFailedError"))
            await send(operator, 3)
            await asyncio.sleep(max(0.0, 12 - (time.monotonic() - began)))  # its session of 10 s is over
            assert await retried_more(service, before)
        await send(operator, 4)
        await until(engine, 4)
        await eventually(lambda: applying.is_well(service), RECOVERY)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("operation", [READ, pytest.param(ALL, marks=pytest.mark.soak)])
async def test_a_topic_that_may_not_be_read_stops_no_other(
    engine: AsyncEngine, operator: Settings, guest: Settings, operation: int
) -> None:
    """With ALL denied, the broker does not even answer its metadata, and aiokafka silently forgets its partitions."""
    async with running(guest) as service:
        await send(operator, 2)
        await until(engine, 2)
        async with denied(operator, (TOPIC, "progress.leveled-up", operation)):
            await eventually(lambda: applying.names(service, "TopicAuthorizationFailedError"))
            refused = await retries(service)  # after four more, a fetch from before the denial is answered
            await eventually(lambda: retried_more(service, refused + 4))
            await send(operator, 3)
            await send(operator, 5, ADVANCED)
            await until(engine, 5, "specialization_progress")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(service.ended(), 6)  # longer than a stall may last
            assert await levels(engine, "user_licenses") == {2}
            assert (await applying.get(service, "/livez"))[0] == 200
        await until(engine, 3)
        await eventually(lambda: applying.is_well(service), RECOVERY)


async def test_the_relay_waits_for_its_rights(engine: AsyncEngine, operator: Settings, guest: Settings) -> None:
    """An idempotent producer needs one of the two rights. The appliers go on, and both recover."""
    async with Service(guest, frozenset({"apply", "relay"})) as service:
        await asyncio.wait_for(service.ready(), 30)
        await _put_request(engine)
        await eventually(lambda: _nothing_waits(engine))
        async with denied(operator, EVERYTHING_ON_THE_CLUSTER), denied(operator, (TOPIC, "*", WRITE)):
            await _put_request(engine)
            await eventually(lambda: applying.names(service, "ClusterAuthorizationFailed"))
            before = await retries(service)
            await eventually(lambda: retried_more(service, before))
            await send(operator, 3)
            await until(engine, 3)
            assert (await applying.get(service, "/livez"))[0] == 200
        await eventually(lambda: _nothing_waits(engine), RECOVERY)
        await eventually(lambda: applying.is_well(service), RECOVERY)


async def _put_request(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await put(conn, [ReconcileRequested(user_id=1)])


async def _nothing_waits(engine: AsyncEngine) -> bool:
    return await count(engine, "levelsync.outbox") == 0


async def test_the_right_to_create_topics_is_waited_for_at_the_start(operator: Settings, guest: Settings) -> None:
    async with admin_client(operator) as client:
        await client.delete_topics(["sync.level-synced"])
    async with contextlib.AsyncExitStack() as stack:
        async with denied(operator, EVERYTHING_ON_THE_CLUSTER), denied(operator, (TOPIC, "sync.level-synced", CREATE)):
            service = await stack.enter_async_context(Service(guest, frozenset({"apply"})))
            await eventually(
                lambda: applying.names(service, "Kafka refused to create sync.level-synced: Authorization failed")
            )
        await asyncio.wait_for(service.ready(), RECOVERY)
        await eventually(lambda: applying.is_well(service))


@pytest.mark.soak
async def test_a_topic_without_rights_stops_no_other(engine: AsyncEngine, operator: Settings, guest: Settings) -> None:
    """Already at the start. Its consumers retry."""
    async with contextlib.AsyncExitStack() as stack:
        async with denied(operator, (TOPIC, "progress.leveled-up", READ)):
            service = await stack.enter_async_context(running(guest))
            await send(operator, 2)
            await send(operator, 5, ADVANCED)
            await until(engine, 5, "specialization_progress")
            await eventually(lambda: applying.names(service, "TopicAuthorizationFailedError"))
        await until(engine, 2)
