"""The role `apply`: two consumers for each topic in one process, so that one decodes while another waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from sqlalchemy.ext.asyncio import AsyncEngine

from events import LICENSE_ADVANCED_TOPIC, PROGRESS_LEVELED_UP_TOPIC
from service.apply.batch import Applied, Applier
from service.apply.call import Target, license_target, progress_target
from service.apply.lost import ask_for_reconcile
from service.apply.report import report_batch
from service.apply.subscriber import subscribe
from service.settings import Settings
from service.stream.background import cause_of, stop
from service.stream.broker import GRACEFUL_TIMEOUT, make_broker
from service.stream.positions import Batch, DatabaseKeeper
from service.telemetry import metrics
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
CONSUMERS_A_TOPIC = 2
START_BACKOFF = 1.0
TURN_SECONDS = 30.0
"""How long one rest may wait for its rows before the others have their turn; it goes on where it was."""


@dataclass(frozen=True, slots=True)
class EventWork:
    """What is done with the level events of one topic (`service.apply.subscriber.Work`)."""

    apply: Callable[[Batch], Awaitable[Applied]]
    apply_rest: Callable[[], Callable[[Batch], Awaitable[Applied]]]
    report: Callable[[Batch, Applied, float], None] = report_batch


@contextlib.asynccontextmanager
async def apply_role(
    engine: AsyncEngine, settings: Settings, health: Health, cluster_id: str
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Run the appliers; yields a function that returns their consumers, for the watchdog."""
    keeper = DatabaseKeeper(engine, cluster_id, ask_for_reconcile)
    broker = make_broker(settings, keeper)
    targets = {
        PROGRESS_LEVELED_UP_TOPIC: license_target(settings.license_defaults),
        LICENSE_ADVANCED_TOPIC: progress_target(settings.progress_defaults),
    }
    one_waits = asyncio.Semaphore(1)

    def work(target: Target) -> EventWork:
        applier = Applier(engine, target, settings.apply_since, leaves_held=True)
        return EventWork(
            applier.apply, lambda: _one_at_a_time(Applier(engine, target, settings.apply_since), one_waits)
        )

    subscribers = [
        subscribe(broker, topic, work(target), settings, health)
        for topic, target in targets.items()
        for _ in range(CONSUMERS_A_TOPIC)
    ]
    async with running_broker(broker, subscribers, health, new_group=await keeper.is_new()) as consumers:
        yield consumers


def _one_at_a_time(applier: Applier, one_waits: asyncio.Semaphore) -> Callable[[Batch], Awaitable[Applied]]:
    """Let the rests of this process wait for locks in turn: each takes a connection from those who do not wait."""

    async def apply(batch: Batch) -> Applied:
        async with one_waits, asyncio.timeout(TURN_SECONDS):
            return await applier.apply(batch)

    return apply


@contextlib.asynccontextmanager
async def running_broker(
    broker: KafkaBroker, subscribers: Sequence[Any], health: Health, *, new_group: bool = False
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Start a broker's subscribers and drain them at the end; yields a function that returns their consumers.

    All join the group at once: one after the other, each would wait for a rebalance of its own. A new group is first
    joined by one alone: Kafka waits three seconds for more members, and three more if one came meanwhile.
    """
    await broker.connect()
    tried = [asyncio.Event() for _ in subscribers]
    starting: list[asyncio.Task[None]] = []
    try:
        for subscriber, event in zip(subscribers, tried, strict=True):
            starting.append(asyncio.create_task(_start(subscriber, health, event)))
            if new_group and len(starting) == 1:
                await event.wait()
        await asyncio.gather(*(event.wait() for event in tried))
        yield lambda: [subscriber.consumer for subscriber in subscribers if subscriber.consumer is not None]
    finally:
        for task in starting:
            await stop(task)
        await _stop(broker, subscribers)


async def _start(subscriber: Any, health: Health, tried: asyncio.Event) -> None:
    """Start one subscriber, again and again where Kafka is away or refuses its topic; the others do not wait for it."""
    while True:
        try:
            await subscriber.start()
        except (KafkaError, OSError) as error:
            health.report("consumers", tried, f"a consumer does not start: {type(error).__name__}: {error}")
            metrics.RETRIES.labels(cause_of(error)[0]).inc()
            log.warning("a consumer does not start, tried again", error=f"{type(error).__name__}: {error}")
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(subscriber.stop(), START_BACKOFF)
            await _end(subscriber)
            tried.set()
            await asyncio.sleep(START_BACKOFF)
        else:
            health.clear("consumers", tried)
            tried.set()
            return


async def _stop(broker: KafkaBroker, subscribers: Sequence[Any]) -> None:
    """Finish the batch in hand, commit it, leave the group; bounded, because aiokafka's stop can hang."""
    try:
        async with asyncio.timeout(GRACEFUL_TIMEOUT + 1):
            await broker.stop()
    except TimeoutError:
        log.warning("the consumers did not stop in time")
    finally:
        for subscriber in subscribers:
            await _end(subscriber)


async def _end(subscriber: Any) -> None:
    """Close the connections of a consumer that did not stop by itself."""
    if subscriber.consumer is not None:
        await subscriber.consumer.end()
