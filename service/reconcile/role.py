"""The role `reconcile`: requests, ranges and due steps, in a consumer group of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from events import RECONCILE_CHUNKS_TOPIC, RECONCILE_REQUESTED_TOPIC
from service.apply.keeper import DatabaseKeeper
from service.apply.lost import ask_for_reconcile
from service.apply.role import running_broker
from service.apply.subscriber import subscribe
from service.background import stop
from service.health import Health
from service.kafka.broker import make_broker
from service.reconcile.chunks import Chunks
from service.reconcile.due import take_due_steps
from service.reconcile.steps import Steps
from service.reconcile.topics import KafkaTopics
from service.reconcile.work import ChunkWork, RequestWork
from service.settings import Settings

RANGES_A_BATCH = 8
"""Ranges that one worker takes at a time: few, so that a run spreads over all of them."""
WORKERS = 2
"""Workers in one process: one compares in PostgreSQL while the other stores what it found."""


@contextlib.asynccontextmanager
async def reconcile_role(
    engine: AsyncEngine, settings: Settings, health: Health, cluster_id: str
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Run the reconciler; yields a function that returns its consumers, for the watchdog."""
    topics = KafkaTopics(settings)
    steps = Steps(settings, topics)
    keeper = DatabaseKeeper(engine, cluster_id, ask_for_reconcile)
    broker = make_broker(settings, keeper)
    chunk_settings = settings.model_copy(update={"batch_max_records": RANGES_A_BATCH})
    work = ChunkWork(engine, Chunks(engine, settings, steps))
    group_id = f"{settings.kafka_group_id}-reconcile"
    requests = RequestWork(engine, steps.woken)
    subscribers = [
        subscribe(broker, RECONCILE_REQUESTED_TOPIC, requests, settings, health, group_id=group_id),
        *(
            subscribe(broker, RECONCILE_CHUNKS_TOPIC, work, chunk_settings, health, group_id=group_id)
            for _ in range(WORKERS)
        ),
    ]
    new_group = await keeper.is_new()
    async with topics, running_broker(broker, subscribers, health, new_group=new_group) as consumers:
        due = asyncio.create_task(take_due_steps(engine, steps, health))
        try:
            yield consumers
        finally:
            await stop(due)
