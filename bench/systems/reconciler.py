"""One process of `levelsync serve --roles reconcile,relay`, and a run from its request to its report."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.servers import Servers, connect
from bench.systems.levelsync import running
from events import RECONCILE_COMPLETED_TOPIC, Direction, ReconcileRequested
from service.settings import Settings
from tests.support.waiting import eventually

_LONGEST = 300


@dataclass(frozen=True)
class Report:
    """The counts of a run's report, and the seconds from the request until the report was read from Kafka."""

    seconds: float
    counts: dict[str, int]


@asynccontextmanager
async def reconciler(servers: Servers, settings: Settings) -> AsyncIterator[int]:
    """Run the process, and yield its id when it is ready and has its partitions."""
    async with running(servers, settings, "reconcile,relay") as process:
        await eventually(lambda: _ready(settings), 60)
        yield process.pid


async def _ready(settings: Settings) -> bool:
    """Return whether the consumers of requests and of chunks have started: every partition has a position row."""
    connection = await connect(settings)
    try:
        return bool(await connection.fetchval("SELECT count(*) = 8 FROM levelsync.applied_offsets"))
    finally:
        await connection.close()


async def reconcile(settings: Settings, *, execute_it: bool = False, direction: Direction = "highest") -> Report:
    """Request a run with an event, and wait for its report.

    Raises:
        TimeoutError: the consumer ended without the report.
    """
    event = ReconcileRequested(id=str(uuid.uuid4()), direction=direction, dry_run=not execute_it, force=execute_it)
    consumer = AIOKafkaConsumer(RECONCILE_COMPLETED_TOPIC, bootstrap_servers=settings.kafka_bootstrap_servers)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    await consumer.start()
    await producer.start()
    try:
        await consumer.seek_to_end()
        record, began = event.to_kafka(), time.perf_counter()
        await producer.send_and_wait(record.topic, key=record.key, value=record.value, headers=list(record.headers))
        report = await _report(consumer, event.id)
        return Report(round(time.perf_counter() - began, 3), report["counts"])
    finally:
        await producer.stop()
        await consumer.stop()


async def _report(consumer: AIOKafkaConsumer, run_id: str) -> dict[str, Any]:
    async for record in consumer:
        data: dict[str, Any] = json.loads(record.value)
        if data["run_id"] == run_id:
            return data
    raise TimeoutError("the consumer ended")
