"""The role `relay`: one process at a time publishes the outbox in order per key, and deletes what Kafka confirmed.

**Order.** The relay reads events in the order of their ids. PostgreSQL assigns ids before the commit, so a lower id may
appear after a higher one was published. This does no harm. A transaction that puts its events after another has
committed has higher ids, and a read that sees its events also sees those of the earlier one. Concurrent transactions
have no order (`service.outbox.put`). The relay deletes exactly the rows that Kafka confirmed, never all rows up to an
id, so that the next read finds a row that appeared late.

**Repeats.** If the relay ends between Kafka's confirmation and the deletion, the events are published again. Consumers
recognize them by source and id. An event is sent only after all earlier events of its key are confirmed. So the *first*
deliveries of a key are in order, even if a relay that was paused for a minute continues beside its successor. Repeats
may come later.

**PgBouncer** in transaction mode breaks session locks and LISTEN. The relay needs a direct connection to PostgreSQL, or
PgBouncer in session mode. Writing into the outbox works through either.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import Future
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.outbox import put
from service.outbox.put import OutboxRow, headers_of, waves
from service.settings import Settings
from service.stream.background import ReportHealthy, in_background, wait_for
from service.stream.producer import running_producer
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
TOPIC_SECONDS = 5.0
"""Seconds after which a topic that refuses events is retried. It may have been created, or a right granted."""
_TOPIC_ERRORS = (InvalidTopicError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError)
_ROW_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError, PolicyViolationError)


@dataclass(slots=True)
class HeldBack:
    """The topics and events that one process does not send at present.

    A topic that refuses events is retried every few seconds, for as long as it refuses them. Its events keep their
    order. An event that Kafka refuses because of its own properties (larger than 1 MB, or than the broker's limit)
    stays in the outbox, and the log reports it as an error. Later events of its key do not wait for it. It is retried
    when a process starts. Only a person deletes it.
    """

    rows: set[int] = field(default_factory=set)
    """The ids of events that Kafka refuses because of their own properties."""
    one_by_one_upto: int = 0
    """Events up to this id are sent one at a time, because Kafka refuses a whole batch for one of its records."""
    _topics: dict[str, tuple[float, str]] = field(default_factory=dict)

    def topics(self) -> dict[str, str]:
        """Return the topics to skip now, with the error of each."""
        now = time.monotonic()
        return {topic: error for topic, (until, error) in self._topics.items() if until > now}

    def hold_topics(self, topics: Mapping[str, str]) -> None:
        """Skip topics for `TOPIC_SECONDS`."""
        for topic, error in topics.items():
            log.error("a topic refuses events and is retried", topic=topic, error=error)
            self._topics[topic] = (time.monotonic() + TOPIC_SECONDS, error)

    def hold_refused(self, failed: Mapping[OutboxRow, KafkaError]) -> None:
        """Hold back the topics and events that Kafka refused in one batch. Other failures are transient."""
        self.hold_topics({row.topic: str(error) for row, error in failed.items() if isinstance(error, _TOPIC_ERRORS)})
        refused = {row: error for row, error in failed.items() if isinstance(error, _ROW_ERRORS)}
        if not refused:
            return
        last = max(row.id for row in refused)
        if last > self.one_by_one_upto:
            self.one_by_one_upto = last
        else:
            for row, error in refused.items():
                self._hold_row(row, error)

    def _hold_row(self, row: OutboxRow, error: KafkaError) -> None:
        self.rows.add(row.id)
        log.error(
            "Kafka refuses an event, and it stays in the outbox",
            outbox_id=row.id,
            topic=row.topic,
            bytes=len(row.value or b""),
            error=str(error),
        )


DELIVERY_TIMEOUT = 30.0
"""Seconds for one wave."""
TOPIC_TIMEOUT = 5.0
"""Seconds to wait for the metadata of a topic."""


@dataclass(slots=True)
class Delivery:
    """The outcome of a batch. Rows that are neither confirmed nor failed were not sent."""

    confirmed: list[int] = field(default_factory=list)
    """The ids of rows that every in-sync replica has."""
    failed: dict[OutboxRow, KafkaError] = field(default_factory=dict)
    """Rows that Kafka refused or did not confirm in time. It may still have the latter."""
    topics: dict[str, str] = field(default_factory=dict)
    """Topics that were not found, with the error of each. Nothing was sent to them."""


async def publish(producer: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> Delivery:
    """Send rows wave by wave, until one fails. Failures are returned, not raised."""
    delivery = Delivery()
    delivery.topics = await _missing_topics(producer, {row.topic for row in rows})
    for wave in waves(row for row in rows if row.topic not in delivery.topics):
        await _send(producer, wave, delivery)
        if delivery.failed:
            break
    return delivery


async def _missing_topics(producer: AIOKafkaProducer, topics: Iterable[str]) -> dict[str, str]:
    """Return the topics that do not exist. A send to such a topic would wait, and delay all others."""
    missing: dict[str, str] = {}
    for topic in sorted(topics):
        try:
            await asyncio.wait_for(producer.partitions_for(topic), TOPIC_TIMEOUT)
        except (KafkaError, TimeoutError) as error:
            missing[topic] = str(error) or "Kafka does not know this topic"
    return missing


async def _send(producer: AIOKafkaProducer, wave: Sequence[OutboxRow], delivery: Delivery) -> None:
    sent: dict[OutboxRow, Future[Any]] = {}
    try:
        async with asyncio.timeout(DELIVERY_TIMEOUT):
            for row in wave:
                await _send_one(producer, row, sent, delivery)
            if sent:
                await asyncio.wait(sent.values())
    except TimeoutError:
        for row in wave:
            if row not in sent:
                delivery.failed.setdefault(row, _timeout_error())
    for row, future in sent.items():
        _record_outcome(row, future, delivery)


async def _send_one(
    producer: AIOKafkaProducer, row: OutboxRow, sent: dict[OutboxRow, Future[Any]], delivery: Delivery
) -> None:
    try:
        sent[row] = await producer.send(row.topic, key=row.key, value=row.value, headers=row.headers)
    except KafkaError as error:
        delivery.failed[row] = error


def _record_outcome(row: OutboxRow, future: Future[Any], delivery: Delivery) -> None:
    if not future.done():
        future.cancel()  # nobody reads its result any more; the record may still arrive
    if future.cancelled():
        delivery.failed[row] = _timeout_error()
    elif (error := future.exception()) is None:
        delivery.confirmed.append(row.id)
    else:
        delivery.failed[row] = error if isinstance(error, KafkaError) else KafkaError(repr(error))


def _timeout_error() -> KafkaError:
    return KafkaTimeoutError(f"no answer within {DELIVERY_TIMEOUT:.0f} s")


TRY_EVERY = 1.0
"""Seconds between attempts of a standby relay to get the lock."""


@contextlib.asynccontextmanager
async def relay_lock(
    engine: AsyncEngine, woken: asyncio.Event, report_healthy: ReportHealthy
) -> AsyncIterator[AsyncConnection]:
    """Wait for the relay lock, and yield the connection that has it, in autocommit. A put event sets `woken`.

    PostgreSQL releases the lock when the connection ends. The relay reads and deletes over this connection only, so
    that a relay that lost the lock without noticing can do neither.
    """
    conn = await engine.connect()
    try:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(put.SET_KEEPALIVES)
        while not (await conn.execute(put.TRY_LOCK)).scalar_one():
            report_healthy()  # standby is a healthy state
            await asyncio.sleep(TRY_EVERY)
        await _listen(conn, woken)
        log.info("relaying the outbox")
        yield conn
    finally:
        await conn.invalidate()  # a pooled connection would keep the lock and the listener
        await conn.close()


async def _listen(conn: AsyncConnection, woken: asyncio.Event) -> None:
    driver = (await conn.get_raw_connection()).driver_connection
    assert driver is not None  # noqa: S101 - the connection is open
    await driver.add_listener(put.CHANNEL, lambda *_: woken.set())


BATCH_ROWS = 500
BATCH_BYTES = 4_000_000
"""A batch ends with the event that reaches this size. One event has at most 1 MB."""
POLL_EVERY = 1.0
"""Seconds without a notification after which the relay reads anyway."""
FINISH_SECONDS = 1.0
"""Seconds that a stop waits for the current batch, so that a clean restart repeats nothing."""


class Relay:
    """The relay of one process. `run` ends only with an error. The next call still skips what was held back."""

    def __init__(
        self, engine: AsyncEngine, settings: Settings, health: Health, *, poll_every: float = POLL_EVERY
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._health = health
        self._poll_every = poll_every
        self._held = HeldBack()

    async def run(self, report_healthy: ReportHealthy) -> None:
        """Wait for the lock, then relay until something fails. `report_healthy` is called after each batch.

        A fault releases the lock, because another process may reach what this one cannot.

        Raises:
            aiokafka.errors.KafkaError: Kafka refused an event or did not answer.
            sqlalchemy.exc.DBAPIError: the connection is lost, and the lock with it.
        """
        woken = asyncio.Event()
        async with (
            relay_lock(self._engine, woken, report_healthy) as conn,
            running_producer(self._settings) as producer,
        ):
            while True:
                woken.clear()  # before the read, so that an event put during it wakes the relay again
                rows = await read_batch(conn, self._held)
                if rows:
                    await _finish_even_if_cancelled(self._relay(conn, producer, rows))
                self._report_topics()
                if not rows:
                    await conn.execute(put.DELETE, {"ids": []})  # fails if the server has become read-only
                report_healthy()
                if not rows:
                    await wait_for(woken, self._poll_every)

    async def _relay(self, conn: AsyncConnection, producer: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> None:
        delivery = await publish(producer, rows)
        if delivery.confirmed:
            await conn.execute(put.DELETE, {"ids": delivery.confirmed})
        self._held.hold_topics(delivery.topics)
        self._held.hold_refused(delivery.failed)
        for error in delivery.failed.values():
            raise error  # to end the producer: the broker would refuse the gap in its sequence numbers

    def _report_topics(self) -> None:
        if topics := self._held.topics():
            named = ", ".join(f"{topic}: {error}" for topic, error in sorted(topics.items()))
            self._health.report("relay", self, f"events wait for topics that refuse them ({named})")
        else:
            self._health.clear("relay", self)


async def read_batch(conn: AsyncConnection, held: HeldBack) -> list[OutboxRow]:
    """Read the oldest events that are not held back, or only one up to `HeldBack.one_by_one_upto`."""
    values = {"without_rows": sorted(held.rows), "without_topics": sorted(held.topics()), "bytes": BATCH_BYTES}
    found = (await conn.execute(put.READ, values | {"rows": BATCH_ROWS})).all()
    rows = [OutboxRow(r.id, r.topic, r.key, r.value, headers_of(r.headers)) for r in found]
    return rows[:1] if rows and rows[0].id <= held.one_by_one_upto else rows


async def _finish_even_if_cancelled(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), FINISH_SECONDS)
        raise


@contextlib.asynccontextmanager
async def relay_role(engine: AsyncEngine, settings: Settings, health: Health) -> AsyncIterator[None]:
    """Run the relay beside the caller. Its faults are reported in `health` under "relay", and it is started again."""
    async with in_background(Relay(engine, settings, health).run, "relay", health):
        yield
