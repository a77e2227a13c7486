"""FastStream subscribers: the raw records of a poll → decode → apply → commit → report, with retries."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from service.faults import InstallationFault, Kind, read_fault
from service.settings import Settings
from service.stream.background import retry
from service.stream.consumer import Held, LevelConsumer
from service.stream.positions import Batch, DatabaseWentBack, Evicted, TopicRecreated
from service.telemetry import metrics
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
T = TypeVar("T")


class GivenUp(Exception):  # noqa: N818 - a decision, not an error
    """Another member received the batch's partitions during the retries."""


class Owner(Protocol):
    """The owner of a batch: it knows whether it still owns the batch, and shows that a retry is in progress."""

    retrying: bool

    @property
    def owns_batch(self) -> bool:
        """Whether the current batch still belongs to this consumer."""


async def until_applied(
    attempt: Callable[[], Awaitable[T]], owner: Owner, health: Health, *, failed: Exception | None = None
) -> T:
    """Call `attempt` until it succeeds. With `failed`, the error of a call by the caller, begin with a wait.

    Raises:
        GivenUp: another member received the partitions during the retries.
        Evicted, DatabaseWentBack, TopicRecreated: as `attempt` raised them. They are not retried.
    """
    first = [failed] if failed else []

    async def again() -> T:
        if first:
            raise first.pop()
        if not owner.owns_batch:
            raise GivenUp("a rebalance happened during the retries")
        return await attempt()

    try:
        return await retry(again, _is_retried, lambda error, number: _report_retry(error, number, owner, health))
    finally:
        owner.retrying = False
        health.clear("appliers", owner)


def _is_retried(error: Exception) -> bool:
    return not isinstance(error, Evicted | DatabaseWentBack | TopicRecreated | GivenUp)


def _report_retry(error: Exception, attempt: int, owner: Owner, health: Health) -> None:
    fault = read_fault(error)
    kind = fault.kind if fault.kind is not Kind.RECORD else Kind.INSTALLATION
    owner.retrying = True
    metrics.RETRIES.labels(kind.value).inc()
    health.report("appliers", owner, f"{kind.value}: {fault.message}")
    log_at_level = log.error if kind is Kind.INSTALLATION else log.warning
    log_at_level(
        "batch is retried",
        attempt=attempt,
        cause=kind.value,
        sqlstate=fault.sqlstate,
        error=fault.message,
        bug=None if fault.sqlstate or isinstance(error, InstallationFault | OSError) else type(error).__name__,
    )


FETCH_BYTES = 512 * 1024
"""Bytes fetched ahead for one partition. It bounds the memory, whatever the backlog."""


ApplyRest = Callable[[], Callable[[Batch], Awaitable[Any]]]


class TopicWork(Protocol):
    """How the batches of one topic are applied and reported (`service.apply.role`, `service.reconcile.work`)."""

    def apply(self, batch: Batch, /) -> Awaitable[Any]:
        """Apply the batch, and return what it did. The caller repeats the call for as long as faults last.

        Raises:
            Evicted, DatabaseWentBack, TopicRecreated: the position rows differ from what this consumer stored last.
        """

    @property
    def apply_rest(self) -> ApplyRest | None:
        """Return a function that applies what `apply` has left of a batch. None when nothing is ever left."""

    def report(self, batch: Batch, applied: Any, seconds: float, /) -> None:
        """Count and log a batch after its commit."""


def subscribe(  # noqa: PLR0913 - what one subscriber is made of
    broker: KafkaBroker, topic: str, work: TopicWork, settings: Settings, health: Health, *, group_id: str | None = None
) -> Any:
    """Create a consumer of `topic` in the group. Several consumers share its partitions, each with own transactions."""

    async def keep_raw(records: tuple[Any, ...]) -> KafkaMessage:
        """Wrap the raw records. FastStream's parser fails on a null header and takes most of a batch's time."""
        return KafkaMessage(body=b"", raw_message=records, consumer=_NO_CONSUMER)

    async def decode_nothing(_message: Any) -> tuple[()]:
        """Return nothing, because FastStream's message would keep the batch in a reference cycle."""
        return ()

    async def handle(_decoded: tuple[()]) -> None:
        """Apply the current batch, finish it, then report it, so that only committed work is reported."""
        consumer, began = subscriber.consumer, time.perf_counter()
        batch: Batch = consumer.batch
        try:
            applied = await work.apply(batch)
        except Exception as error:  # noqa: BLE001 - a bug is retried too, and visible in /readyz
            applied = await _retry_batch(work, batch, consumer, health, error)
        if applied is not None:
            if work.apply_rest is not None and applied.left:
                await _set_aside(work, work.apply_rest, applied.left, consumer, health)
            await consumer.finish()
            work.report(batch, applied, time.perf_counter() - began)

    subscriber: Any = broker.subscriber(
        topic,
        batch=True,
        max_records=settings.batch_max_records,
        batch_timeout_ms=max(1, int(settings.batch_max_wait.total_seconds() * 1000)),
        group_id=group_id or settings.kafka_group_id,
        ack_policy=AckPolicy.MANUAL,
        parser=keep_raw,
        decoder=decode_nothing,
        no_reply=True,
        isolation_level="read_committed",
        auto_offset_reset="none",  # `starting_point` decides, from the database and the group's commit
        fetch_max_bytes=settings.batch_max_bytes,
        max_partition_fetch_bytes=FETCH_BYTES,
        session_timeout_ms=10_000,
        heartbeat_interval_ms=1_000,  # bounds how late a member learns of a rebalance
        rebalance_timeout_ms=30_000,  # must exceed DRAIN_TIMEOUT
        max_poll_interval_ms=86_400_000,  # outages may last long; the watchdog detects stalls
    )
    subscriber(handle)
    return subscriber


async def _retry_batch(work: TopicWork, batch: Batch, consumer: LevelConsumer, health: Health, error: Exception) -> Any:
    """Retry a failed batch for as long as faults last. Return None when the batch must not be applied here any more."""
    try:
        return await until_applied(lambda: work.apply(batch), consumer, health, failed=error)
    except (Evicted, GivenUp, DatabaseWentBack, TopicRecreated) as reason:
        _log_given_up(reason)
        consumer.abandon(wait_for_rebalance=isinstance(reason, Evicted))
    return None


async def _set_aside(
    work: TopicWork, make_apply: ApplyRest, rests: Sequence[Batch], consumer: LevelConsumer, health: Health
) -> None:
    """Apply the records of held pairs beside the batches that follow.

    This waits first when too many such records are in memory already.
    """

    async def apply(held: Held) -> None:
        apply_it, began = make_apply(), time.perf_counter()
        try:
            applied = await until_applied(lambda: apply_it(held.rest), held, health)
        except (Evicted, GivenUp, DatabaseWentBack, TopicRecreated) as reason:
            _log_given_up(reason)
            consumer.restart_partitions(wait_for_rebalance=isinstance(reason, Evicted))
        else:
            consumer.continue_after(held)
            work.report(held.rest, applied, time.perf_counter() - began)

    for rest in rests:
        await consumer.set_aside(rest, apply)


def _log_given_up(reason: Exception) -> None:
    if isinstance(reason, DatabaseWentBack):
        log.warning("the database has gone back in time: records are read again from its position", reason=str(reason))
    elif isinstance(reason, TopicRecreated):
        log.warning("batch given up: its topic was deleted and created again", reason=str(reason))
    else:
        log.warning("batch given up: its partitions have another owner", reason=str(reason))


class _NoConsumer:
    """The consumer that FastStream may acknowledge with. It does nothing: `LevelConsumer.finish` commits offsets."""

    async def commit(self) -> None:
        """Never called with AckPolicy.MANUAL."""

    def seek(self, partition: Any, offset: int) -> None:
        """Never called with AckPolicy.MANUAL."""


_NO_CONSUMER = _NoConsumer()
