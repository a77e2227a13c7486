"""The role `apply` in this process, and what Kafka and PostgreSQL say of it: what the tests of this folder share."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import LICENSE_ADVANCED_TOPIC, PROGRESS_LEVELED_UP_TOPIC
from service.process.runtime import Service
from service.settings import Settings
from tests.support import topics
from tests.support.model import LEVELED_UP, Meant
from tests.support.records import as_record
from tests.support.tables import become_owner
from tests.support.topics import Record
from tests.support.waiting import eventually

TOPICS = (PROGRESS_LEVELED_UP_TOPIC, LICENSE_ADVANCED_TOPIC)
Offsets = dict[TopicPartition, int]
_TABLES = (
    "public.user_licenses",
    "public.specialization_progress",
    "public.license_progressions",
    "levelsync.dead_letters",
)
POSITION_COLUMNS = "SELECT topic, partition, next_offset, cluster_id FROM levelsync.applied_offsets ORDER BY 1, 2"
Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Samples by name and labels."""
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """The appliers, started and ready; drained at the end."""
    async with Service(settings, frozenset({"apply"})) as service:
        await asyncio.wait_for(service.ready(), 60)
        yield service


async def ends(settings: Settings) -> Offsets:
    """The high watermark of every partition of both topics."""
    client = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
    await client.start()
    try:
        async with admin(settings) as described:
            topics = await described.describe_topics(list(TOPICS))
        partitions = [TopicPartition(t["topic"], p["partition"]) for t in topics for p in t["partitions"]]
        return dict(await client.end_offsets(partitions))
    finally:
        await client.stop()


async def applied(engine: AsyncEngine) -> Offsets:
    """`applied_offsets`."""
    async with engine.connect() as conn:
        found = await conn.execute(text("SELECT topic, partition, next_offset FROM levelsync.applied_offsets"))
        return {TopicPartition(row[0], row[1]): row[2] for row in found}


async def committed(settings: Settings) -> Offsets:
    """What the group has committed to Kafka."""
    return await topics.committed(settings.kafka_bootstrap_servers, settings.kafka_group_id)


async def caught_up(settings: Settings, engine: AsyncEngine, timeout: float = 30) -> Offsets:  # noqa: ASYNC109 - a test's own bound
    """Wait until everything is applied: position rows, the group's commits and Kafka's ends are the same."""
    end = await ends(settings)

    async def reached() -> bool:
        assert await applied(engine) == end
        return True

    async def in_kafka_too() -> bool:
        assert await committed(settings) == end
        return True

    await eventually(reached, timeout)
    await eventually(in_kafka_too, timeout)
    return end


async def contents(engine: AsyncEngine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables that events write, with every column."""
    return {table: await rows(engine, f"SELECT * FROM {table} ORDER BY id") for table in _TABLES}


async def rows(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    """What a query finds."""
    async with engine.connect() as conn:
        return [tuple(row) for row in await conn.execute(text(query))]


async def run(engine: AsyncEngine, *statements: str) -> None:
    """Run statements in one transaction as the database's owner, whatever rights the service has."""
    async with engine.begin() as conn:
        await become_owner(conn)
        for statement in statements:
            await conn.execute(text(statement))


async def count(engine: AsyncEngine, what: str) -> int:
    """How many rows there are of `what`, a table with or without a condition."""
    async with engine.connect() as conn:
        return int((await conn.execute(text(f"SELECT count(*) FROM {what}"))).scalar_one())


async def get(service: Service, path: str) -> tuple[int, str]:
    """GET a path of the service's HTTP server: status and body."""
    return await asyncio.to_thread(_get, f"{service.http_url}{path}")


async def problems(service: Service) -> dict[str, list[str]]:
    """What /readyz says is wrong; nothing is with status 200, and only then."""
    status, body = await get(service, "/readyz")
    answer = json.loads(body)
    assert (status == 200) is answer["ready"] is (not answer["problems"])
    found: dict[str, list[str]] = answer["problems"]
    return found


async def metrics(service: Service) -> Metrics:
    """What /metrics says."""
    _, body = await get(service, "/metrics")
    found: Metrics = {}
    for line in body.splitlines():
        if match := _SAMPLE.match(line):
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            found[match[1], labels] = float(match[3])
    return found


def since(before: Metrics, after: Metrics) -> Metrics:
    """By how much each sample grew: the counters are the process's, which runs other tests too."""
    return defaultdict(float, {key: value - before.get(key, 0) for key, value in after.items()})


def labels(**given: str) -> frozenset[tuple[str, str]]:
    """The labels of a metric's sample."""
    return frozenset(given.items())


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An operator's client."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers, request_timeout_ms=15_000)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def transactional(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A publisher that uses Kafka's transactions."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, transactional_id=f"levelsync-test-{uuid.uuid4().hex}"
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def delete_records_below(settings: Settings, offsets: Mapping[TopicPartition, int]) -> None:
    """Do what retention does: the partitions begin at these offsets afterwards."""
    async with admin(settings) as client:
        await client.delete_records({tp: RecordsToDelete(before_offset=at) for tp, at in offsets.items()})


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback URL
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def rise(user: int, level: int, partition: int, kind: str = LEVELED_UP) -> Record:
    """A good record of its own, for a partition of the test's choice; of now, or retention would take it."""
    made = as_record(Meant(kind, user, "PLAYER", level, datetime.now(UTC), "/test", f"e{user}-{level}"), -1)
    return Record(made.topic, made.key, made.value, made.headers, made.timestamp, partition)
