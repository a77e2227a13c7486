"""Rights that are revoked and granted again: the service retries visibly and other topics go on (law 4)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.process.runtime import Service
from service.settings import Settings
from service.stream.connection import admin_client
from tests.support import applying
from tests.support.apache_kafka import GuardedKafka
from tests.support.applying import rise, running
from tests.support.model import ADVANCED, LEVELED_UP, Pair
from tests.support.outbox import pending, put_numbered
from tests.support.roles import change_acl
from tests.support.tables import empty_tables, licenses, progress
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
TOPIC, GROUP, CLUSTER = 2, 3, 4
ALL, READ, WRITE, CREATE = 2, 3, 4, 5
DENY, ALLOW = 2, 3
LITERAL = 3
Right = tuple[int, str, int]
"""A resource's type, its name, and the operation."""
EVERYTHING_ON_THE_CLUSTER: Right = (CLUSTER, "kafka-cluster", ALL)
"""It includes DescribeCluster, IdempotentWrite and Create."""
RECOVERY = 30.0
"""Seconds from the end of a fault (semantics, "Passing faults")."""


@pytest.fixture
async def guest(settings: Settings, guarded_kafka: GuardedKafka, engine: AsyncEngine) -> Settings:
    """Settings of a user who may do everything with topics and groups. The tables are empty."""
    await empty_tables(engine)
    for kind in (TOPIC, GROUP):
        await change_acl(guarded_kafka, CreateAclsRequest, (kind, "*", LITERAL, ALL, ALLOW))
    return settings.model_copy(update=guarded_kafka.access)


@asynccontextmanager
async def denied(guarded_kafka: GuardedKafka, *rights: Right) -> AsyncIterator[None]:
    """Deny rights inside the block."""
    acls = [(kind, name, LITERAL, operation, DENY) for kind, name, operation in rights]
    for acl in acls:
        await change_acl(guarded_kafka, CreateAclsRequest, acl)
    try:
        yield
    finally:
        for acl in acls:
            await change_acl(guarded_kafka, DeleteAclsRequest, acl)


async def send(guarded_kafka: GuardedKafka, level: int, kind: str = LEVELED_UP) -> None:
    await publish(guarded_kafka.bootstrap_servers, [rise(user, level, user % 4, kind) for user in range(1, 9)])


async def retries(service: Service) -> float:
    found = await applying.metrics(service)
    return found.get(("levelsync_retries_total", applying.labels(cause="kafka_unavailable")), 0.0)


async def retried_more(service: Service, than: float) -> bool:
    return await retries(service) > than


async def until(
    engine: AsyncEngine, level: int, of: Callable[[AsyncEngine], Awaitable[dict[Pair, int]]] = licenses
) -> None:
    async def reached() -> bool:
        assert set((await of(engine)).values()) == {level}
        return True

    await eventually(reached, RECOVERY)


@pytest.mark.soak
@pytest.mark.usefixtures("impatient")
async def test_a_group_that_may_not_be_read_for_a_while_is_joined_again(
    engine: AsyncEngine, guarded_kafka: GuardedKafka, guest: Settings
) -> None:
    """For longer than its session: aiokafka's heartbeat then ends for good, and the group forgets the member."""
    async with running(guest) as service:
        await send(guarded_kafka, 2)
        await until(engine, 2)
        before = await retries(service)
        async with denied(guarded_kafka, (GROUP, guest.kafka_group_id, READ)):
            began = time.monotonic()
            await eventually(lambda: applying.names(service, "GroupAuthorizationFailedError"))
            await send(guarded_kafka, 3)
            await asyncio.sleep(max(0.0, 12 - (time.monotonic() - began)))  # its session of 10 s is over
            assert await retried_more(service, before)
        await send(guarded_kafka, 4)
        await until(engine, 4)
        await eventually(lambda: applying.is_well(service), RECOVERY)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("operation", [READ, pytest.param(ALL, marks=pytest.mark.soak)])
async def test_a_topic_that_may_not_be_read_stops_no_other(
    engine: AsyncEngine, guarded_kafka: GuardedKafka, guest: Settings, operation: int
) -> None:
    """With ALL denied, the broker does not even answer its metadata, and aiokafka silently forgets its partitions."""
    async with running(guest) as service:
        await send(guarded_kafka, 2)
        await until(engine, 2)
        async with denied(guarded_kafka, (TOPIC, "progress.leveled-up", operation)):
            await eventually(lambda: applying.names(service, "TopicAuthorizationFailedError"))
            refused = await retries(service)  # after four more, a fetch from before the denial is answered
            await eventually(lambda: retried_more(service, refused + 4))
            await send(guarded_kafka, 3)
            await send(guarded_kafka, 5, ADVANCED)
            await until(engine, 5, progress)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(service.ended(), 6)  # longer than a stall may last
            assert set((await licenses(engine)).values()) == {2}
            assert (await applying.get(service, "/livez"))[0] == 200
        await until(engine, 3)
        await eventually(lambda: applying.is_well(service), RECOVERY)


async def test_the_relay_waits_for_rights(engine: AsyncEngine, guarded_kafka: GuardedKafka, guest: Settings) -> None:
    """An idempotent producer needs one of the two rights. The appliers go on, and both recover."""
    async with Service(guest, frozenset({"apply", "relay"})) as service:
        await asyncio.wait_for(service.ready(), 30)
        await put_numbered(engine, [(1, 1)])
        await eventually(lambda: _nothing_waits(engine))
        async with denied(guarded_kafka, EVERYTHING_ON_THE_CLUSTER, (TOPIC, "*", WRITE)):
            await put_numbered(engine, [(1, 1)])
            await eventually(lambda: applying.names(service, "ClusterAuthorizationFailed"))
            before = await retries(service)
            await eventually(lambda: retried_more(service, before))
            await send(guarded_kafka, 3)
            await until(engine, 3)
            assert (await applying.get(service, "/livez"))[0] == 200
        await eventually(lambda: _nothing_waits(engine), RECOVERY)
        await eventually(lambda: applying.is_well(service), RECOVERY)


async def _nothing_waits(engine: AsyncEngine) -> bool:
    return await pending(engine) == 0


async def test_a_start_waits_for_the_right_to_create_topics(guarded_kafka: GuardedKafka, guest: Settings) -> None:
    async with admin_client(guest) as client:
        await client.delete_topics(["sync.level-synced"])
    async with contextlib.AsyncExitStack() as stack:
        async with denied(guarded_kafka, EVERYTHING_ON_THE_CLUSTER, (TOPIC, "sync.level-synced", CREATE)):
            service = await stack.enter_async_context(Service(guest, frozenset({"apply"})))
            await eventually(
                lambda: applying.names(service, "Kafka refused to create sync.level-synced: Authorization failed")
            )
        await asyncio.wait_for(service.ready(), RECOVERY)
        await eventually(lambda: applying.is_well(service))


@pytest.mark.soak
async def test_a_topic_without_rights_stops_no_other(
    engine: AsyncEngine, guarded_kafka: GuardedKafka, guest: Settings
) -> None:
    """Already at the start. Its consumers retry."""
    async with contextlib.AsyncExitStack() as stack:
        async with denied(guarded_kafka, (TOPIC, "progress.leveled-up", READ)):
            service = await stack.enter_async_context(running(guest))
            await send(guarded_kafka, 2)
            await send(guarded_kafka, 5, ADVANCED)
            await until(engine, 5, progress)
            await eventually(lambda: applying.names(service, "TopicAuthorizationFailedError"))
        await until(engine, 2)
