"""The role `apply` in this process, and what Kafka, PostgreSQL and the service's HTTP server report about it."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from sqlalchemy.ext.asyncio import AsyncEngine

from events import LICENSE_ADVANCED_TOPIC, PROGRESS_LEVELED_UP_TOPIC
from service.process.runtime import Service
from service.settings import Settings
from service.stream.connection import admin_client
from tests.support import topics
from tests.support.model import LEVELED_UP, Meant
from tests.support.process import http_get
from tests.support.records import as_sent
from tests.support.tables import read
from tests.support.topics import Record
from tests.support.waiting import eventually

TOPICS = (PROGRESS_LEVELED_UP_TOPIC, LICENSE_ADVANCED_TOPIC)
Offsets = dict[TopicPartition, int]

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Samples by name and labels."""
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """Run the appliers; they are ready inside the block, and drained at its end."""
    async with Service(settings, frozenset({"apply"})) as service:
        await asyncio.wait_for(service.ready(), 60)
        yield service


async def ends(settings: Settings) -> Offsets:
    """Return the high watermark of every partition of both topics."""
    async with admin_client(settings) as client:
        described = await client.describe_topics(list(TOPICS))
    partitions = [TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]]
    return await topics.ends(settings.kafka_bootstrap_servers, partitions)


async def applied(engine: AsyncEngine) -> Offsets:
    """Return the positions in `applied_offsets`."""
    found = await read(engine, "SELECT topic, partition, next_offset FROM levelsync.applied_offsets")
    return {TopicPartition(row[0], row[1]): row[2] for row in found}


async def committed(settings: Settings) -> Offsets:
    """Return the offsets that the group has committed to Kafka."""
    return await topics.committed(settings.kafka_bootstrap_servers, settings.kafka_group_id)


async def caught_up(settings: Settings, engine: AsyncEngine, timeout: float = 30) -> Offsets:  # noqa: ASYNC109 - a test's own bound
    """Wait until position rows, the group's commits and Kafka's ends are equal."""
    end = await ends(settings)

    async def reached() -> bool:
        assert await applied(engine) == end
        assert await committed(settings) == end
        return True

    await eventually(reached, timeout)
    return end


async def get(service: Service, path: str) -> tuple[int, str]:
    """GET a path of the service's HTTP server; returns status and body."""
    return await asyncio.to_thread(http_get, f"{service.http_url}{path}")


async def problems(service: Service) -> dict[str, list[str]]:
    """Return the problems in /readyz. Its status is 200 when there are none, and only then."""
    status, body = await get(service, "/readyz")
    answer = json.loads(body)
    assert (status == 200) is answer["ready"] is (not answer["problems"])
    found: dict[str, list[str]] = answer["problems"]
    return found


async def is_well(service: Service) -> bool:
    """Return whether /readyz reports no problem."""
    return not await problems(service)


async def names(service: Service, *words: str, component: str = "") -> bool:
    """Return whether the problems in /readyz, or those of one component, contain all of these words."""
    found = await problems(service)
    said = json.dumps(found.get(component) if component else found)
    return all(word in said for word in words)


async def metrics(service: Service) -> Metrics:
    """Return the samples of /metrics."""
    _, body = await get(service, "/metrics")
    found: Metrics = {}
    for line in body.splitlines():
        if match := _SAMPLE.match(line):
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            found[match[1], labels] = float(match[3])
    return found


async def has_no_lag(service: Service) -> bool:
    """Return whether /metrics reports a lag of 0 for each of the eight partitions."""
    lags = [value for (name, _), value in (await metrics(service)).items() if name == "levelsync_consumer_lag_records"]
    assert len(lags) == 8
    return not any(lags)


def since(before: Metrics, after: Metrics) -> Metrics:
    """Return by how much each sample grew. The counters belong to this process, which runs other tests too."""
    return defaultdict(float, {key: value - before.get(key, 0) for key, value in after.items()})


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


def transactional(settings: Settings) -> AIOKafkaProducer:
    """Return a producer that uses Kafka's transactions. `async with` starts and stops it."""
    name = f"levelsync-test-{uuid.uuid4().hex}"
    return AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, transactional_id=name)


async def delete_records_below(settings: Settings, offsets: Mapping[TopicPartition, int]) -> None:
    """Delete records as retention does: the partitions begin at these offsets afterwards."""
    async with admin_client(settings) as client:
        await client.delete_records({tp: RecordsToDelete(before_offset=at) for tp, at in offsets.items()})


def rise(user: int, level: int, partition: int, kind: str = LEVELED_UP) -> Record:
    """Return a good record for a partition, with the present time, because retention would delete an old one."""
    return as_sent(Meant(kind, user, "PLAYER", level, datetime.now(UTC), "/test", f"e{user}-{level}"), partition)
