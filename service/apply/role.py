"""The role `apply`: two consumers for each topic in one process, so that one decodes while another waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from sqlalchemy.ext.asyncio import AsyncEngine

from events import LICENSE_ADVANCED_TOPIC, PROGRESS_LEVELED_UP_TOPIC
from service.apply.batch import Applier
from service.apply.events import EventWork
from service.apply.keeper import DatabaseKeeper
from service.apply.subscriber import subscribe
from service.apply.targets import license_target, progress_target
from service.health import Health
from service.kafka.broker import GRACEFUL_TIMEOUT, make_broker
from service.settings import Settings

log = structlog.get_logger(__name__)
CONSUMERS_A_TOPIC = 2
START_BACKOFF = 1.0


@contextlib.asynccontextmanager
async def apply_role(
    engine: AsyncEngine, settings: Settings, health: Health, cluster_id: str
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Run the appliers; yields a function that returns their consumers, for the watchdog."""
    broker = make_broker(settings, DatabaseKeeper(engine, cluster_id))
    targets = {
        PROGRESS_LEVELED_UP_TOPIC: license_target(settings.license_defaults),
        LICENSE_ADVANCED_TOPIC: progress_target(settings.progress_defaults),
    }
    subscribers = [
        subscribe(broker, topic, EventWork(topic, Applier(engine, target, settings.apply_since)), settings, health)
        for topic, target in targets.items()
        for _ in range(CONSUMERS_A_TOPIC)
    ]
    async with running_broker(broker, subscribers, health) as consumers:
        yield consumers


@contextlib.asynccontextmanager
async def running_broker(
    broker: KafkaBroker, subscribers: Sequence[Any], health: Health
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Start a broker's subscribers and drain them at the end; yields a function that returns their consumers."""
    try:
        await _start(broker, health)
        yield lambda: [subscriber.consumer for subscriber in subscribers if subscriber.consumer is not None]
    finally:
        await _stop(broker)


async def _start(broker: KafkaBroker, health: Health) -> None:
    """Start, again and again where Kafka goes away meanwhile."""
    while True:
        try:
            await _start_together(broker)
        except (KafkaError, OSError) as error:
            health.report("kafka", broker, f"the consumers do not start: {error}")
            log.warning("the consumers do not start, tried again", error=str(error))
            await _stop(broker)
            await asyncio.sleep(START_BACKOFF)
        else:
            health.clear("kafka", broker)
            return


async def _start_together(broker: KafkaBroker) -> None:
    """Join the group with every consumer at once: one after the other, each would wait for a rebalance of its own."""
    await broker.connect()
    starts = (subscriber.start() for subscriber in broker.subscribers)
    for outcome in await asyncio.gather(*starts, return_exceptions=True):  # none is left half started behind an error
        if outcome is not None:
            raise outcome


async def _stop(broker: KafkaBroker) -> None:
    """Finish the batch in hand, commit it, leave the group; bounded, because aiokafka's stop can hang."""
    try:
        async with asyncio.timeout(GRACEFUL_TIMEOUT + 1):
            await broker.stop()
    except TimeoutError:
        log.warning("the consumers did not stop in time")
