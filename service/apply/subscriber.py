"""FastStream's subscribers: a poll's raw records → decode → apply → commit → report, with retries."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from service.faults import InstallationFault, Kind, read_fault
from service.settings import Settings
from service.stream.consumer import Held, LevelConsumer
from service.stream.positions import Batch, DatabaseWentBack, Evicted, TopicRecreated
from service.telemetry import metrics
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
T = TypeVar("T")
LONGEST_WAIT = 5.0
"""Seconds between attempts at most, so that work goes on within seconds of a fault's end."""


class GivenUp(Exception):  # noqa: N818 - a decision, not an error
    """The batch's partitions were given to another member while its fault lasted."""


class Owner(Protocol):
    """Who is trying: it says whether the work is still its own, and shows that it is being retried."""

    retrying: bool

    @property
    def owns_batch(self) -> bool:
        """Whether the batch in hand is still this consumer's."""


async def until_applied(
    attempt: Callable[[], Awaitable[T]], owner: Owner, health: Health, *, failed: Exception | None = None
) -> T:
    """Call `attempt` until it succeeds. It has been called already where it `failed`: the first wait comes first.

    Raises:
        GivenUp: the partitions were given away meanwhile.
        Evicted, DatabaseWentBack, TopicRecreated: as `attempt` raised them; they are not retried.
    """
    first = [failed] if failed else []

    async def again() -> T:
        if first:
            raise first.pop()
        if not owner.owns_batch:
            raise GivenUp("a rebalance came while the batch was retried")
        return await attempt()

    retrying = AsyncRetrying(
        wait=wait_random_exponential(multiplier=0.1, max=LONGEST_WAIT),
        retry=retry_if_exception(_may_pass),
        before_sleep=lambda state: _note(state, owner, health),
        reraise=True,
    )
    try:
        return await retrying(again)
    finally:
        owner.retrying = False
        health.clear("appliers", owner)


def _may_pass(error: BaseException) -> bool:
    """tenacity catches cancellation like any error; retried, it would keep the process from leaving."""
    return isinstance(error, Exception) and not isinstance(error, Evicted | DatabaseWentBack | TopicRecreated | GivenUp)


def _note(state: RetryCallState, owner: Owner, health: Health) -> None:
    error = state.outcome.exception() if state.outcome else None
    if error is None:
        return
    fault = read_fault(error)
    kind = fault.kind if fault.kind is not Kind.RECORD else Kind.INSTALLATION
    owner.retrying = True
    metrics.RETRIES.labels(kind.value).inc()
    health.report("appliers", owner, f"{kind.value}: {fault.message}")
    say = log.error if kind is Kind.INSTALLATION else log.warning
    say(
        "batch is retried",
        attempt=state.attempt_number,
        cause=kind.value,
        sqlstate=fault.sqlstate,
        error=fault.message,
        bug=None if fault.sqlstate or isinstance(error, InstallationFault | OSError) else type(error).__name__,
    )


FETCH_BYTES = 512 * 1024
"""Bytes fetched ahead for one partition: bounds memory whatever the backlog."""


ApplyRest = Callable[[], Callable[[Batch], Awaitable[Any]]]


class Work(Protocol):
    """What is done with the batches of one topic (`service.apply.batch`, `service.reconcile.work`)."""

    def apply(self, batch: Batch, /) -> Awaitable[Any]:
        """Give the batch its effect, once; called again for as long as faults last.

        Raises:
            Evicted, DatabaseWentBack, TopicRecreated: the position rows are not where this consumer left them.
        """

    @property
    def apply_rest(self) -> ApplyRest | None:
        """How to apply what `apply` has left, once for each rest; None where it leaves nothing."""

    def report(self, batch: Batch, applied: Any, seconds: float, /) -> None:
        """Count and log what is committed."""


def subscribe(  # noqa: PLR0913 - what one subscriber is made of
    broker: KafkaBroker, topic: str, work: Work, settings: Settings, health: Health, *, group_id: str | None = None
) -> Any:
    """One consumer of `topic` in the group. Several of them share its partitions, each with its own transaction."""

    async def keep_raw(records: tuple[Any, ...]) -> KafkaMessage:
        """Wrap the raw records: FastStream's own parser fails on a null header and costs most of a batch's time."""
        return KafkaMessage(body=b"", raw_message=records, consumer=_NO_CONSUMER)

    async def decode_nothing(_message: Any) -> tuple[()]:
        """Return nothing of the batch: FastStream's message keeps it, in a cycle that waits for the collector."""
        return ()

    async def handle(_decoded: tuple[()]) -> None:
        """Apply the batch in hand, go on behind it, report: in this order, to report only what is committed."""
        consumer, began = subscriber.consumer, time.perf_counter()
        batch: Batch = consumer.batch
        try:
            applied = await work.apply(batch)
        except Exception as error:  # noqa: BLE001 - also a bug is retried, and seen in /readyz
            applied = await _apply_at_last(work, batch, consumer, health, error)
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
        auto_offset_reset="none",  # `starting_point` decides, with the database
        fetch_max_bytes=settings.batch_max_bytes,
        max_partition_fetch_bytes=FETCH_BYTES,
        session_timeout_ms=10_000,
        heartbeat_interval_ms=1_000,  # how soon a member learns of a rebalance
        rebalance_timeout_ms=30_000,  # must exceed DRAIN_TIMEOUT
        max_poll_interval_ms=86_400_000,  # an outage may last; the watchdog sees a consumer that stands still
    )
    subscriber(handle)
    return subscriber


async def _apply_at_last(work: Work, batch: Batch, consumer: LevelConsumer, health: Health, error: Exception) -> Any:
    """Apply a batch that failed, for as long as faults last; None where it is somebody else's, or starts again."""
    try:
        return await until_applied(lambda: work.apply(batch), consumer, health, failed=error)
    except (Evicted, GivenUp, DatabaseWentBack, TopicRecreated) as reason:
        _log_given_up(reason)
        consumer.abandon(wait_for_rebalance=isinstance(reason, Evicted))
    return None


async def _set_aside(
    work: Work, make_apply: ApplyRest, rests: Sequence[Batch], consumer: LevelConsumer, health: Health
) -> None:
    """Let what somebody else's locks keep be applied beside the batches that follow.

    Where that would be more than a batch, wait first: it stays in memory.
    """

    async def apply(held: Held) -> None:
        apply_it, began = make_apply(), time.perf_counter()
        try:
            applied = await until_applied(lambda: apply_it(held.rest), held, health)
        except (Evicted, GivenUp, DatabaseWentBack, TopicRecreated) as reason:
            _log_given_up(reason)
            consumer.begin_again(wait_for_rebalance=isinstance(reason, Evicted))
        else:
            consumer.go_on_behind(held)
            work.report(held.rest, applied, time.perf_counter() - began)

    for rest in rests:
        await consumer.set_aside(rest, apply)


def _log_given_up(reason: Exception) -> None:
    if isinstance(reason, DatabaseWentBack):
        log.warning("the database has gone back in time: reading again from its position", reason=str(reason))
    elif isinstance(reason, TopicRecreated):
        log.warning("batch given up: its topic was deleted and created again", reason=str(reason))
    else:
        log.warning("batch given up: its partitions have another owner", reason=str(reason))


class _NoConsumer:
    """What FastStream may acknowledge with: nothing. Offsets are committed by `LevelConsumer.finish` alone."""

    async def commit(self) -> None:
        """Never called with AckPolicy.MANUAL."""

    def seek(self, partition: Any, offset: int) -> None:
        """Never called with AckPolicy.MANUAL."""


_NO_CONSUMER = _NoConsumer()
