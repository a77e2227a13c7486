"""The role `relay`: one process at a time publishes the outbox in order per key, and deletes what Kafka confirmed.

**Order.** Events are read in the order of their ids. Ids are given before the commit, so a lower one may appear after
a higher one was published. That does no harm: of two transactions, the later one's ids are higher wherever it put its
events after the earlier one had committed, and any read that sees the later sees the earlier. Transactions that ran
side by side have no order between them (`service.outbox.put`). What is deleted is exactly what Kafka confirmed, never
"everything up to", so that the late one is still there for the next read.

**Repeats.** Whatever dies between Kafka's confirmation and the deletion is published again: consumers know an event by
its source and id. An event leaves only after those before it on its key are confirmed, so the *first* deliveries of a
key are in order, whatever fails between, and even where a relay that was stopped for a minute goes on beside its
successor; repeats may come later.

**PgBouncer** in transaction mode breaks the lock of the session and LISTEN: the relay needs PostgreSQL itself, or
PgBouncer in session mode. Putting events works through either.
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
from service.outbox.put import Row, headers_of, waves
from service.settings import Settings
from service.stream.background import Well, in_background, wait_for
from service.stream.producer import running_producer
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
TOPIC_SECONDS = 5.0
"""How long a topic that refuses everything is left alone: it may be made, or its rights be given, meanwhile."""
_TOPIC_ERRORS = (InvalidTopicError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError)
_ROW_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError, PolicyViolationError)


@dataclass(slots=True)
class HeldBack:
    """What one process leaves alone.

    A topic that cannot be written to is tried again every few seconds, for as long as that lasts; its events keep
    their order. A single event that Kafka refuses for itself (larger than 1 MB, or than the broker's own limit) will
    never be taken as things stand: it stays in the outbox, an error in the log names it, and the later events of its
    key do not wait for it. It is tried again when a process starts, and it is a person who deletes it.
    """

    rows: set[int] = field(default_factory=set)
    """Ids of events that are refused for themselves."""
    one_by_one_upto: int = 0
    """Events up to this id leave one at a time: Kafka refuses a batch for one of its records."""
    _topics: dict[str, tuple[float, str]] = field(default_factory=dict)

    def topics(self) -> dict[str, str]:
        """Topics to leave alone now, with Kafka's words."""
        now = time.monotonic()
        return {topic: words for topic, (until, words) in self._topics.items() if until > now}

    def hold_topics(self, topics: Mapping[str, str]) -> None:
        """Leave topics alone for a while."""
        for topic, words in topics.items():
            log.error("a topic takes no events, tried again", topic=topic, error=words)
            self._topics[topic] = (time.monotonic() + TOPIC_SECONDS, words)

    def sort(self, failed: Mapping[Row, KafkaError]) -> None:
        """Hold back what the failures of one batch say can not be taken; all other failures may pass."""
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

    def _hold_row(self, row: Row, error: KafkaError) -> None:
        self.rows.add(row.id)
        log.error(
            "an event is refused by Kafka and stays in the outbox",
            outbox_id=row.id,
            topic=row.topic,
            bytes=len(row.value or b""),
            error=str(error),
        )


DELIVERY_TIMEOUT = 30.0
"""Seconds for one wave."""
TOPIC_TIMEOUT = 5.0
"""Seconds to find a topic that was not used before."""


@dataclass(slots=True)
class Delivery:
    """The outcome of a batch. Rows that are neither here nor there were not sent."""

    confirmed: list[int] = field(default_factory=list)
    """Ids of rows that are on every in-sync replica."""
    failed: dict[Row, KafkaError] = field(default_factory=dict)
    """Rows that Kafka refused or did not confirm in time: it may have those all the same."""
    topics: dict[str, str] = field(default_factory=dict)
    """Topics that cannot be found, with Kafka's words; nothing was sent to them."""


async def publish(producer: AIOKafkaProducer, rows: Sequence[Row]) -> Delivery:
    """Send rows wave by wave, as far as everything arrives. A failure is in the result, not raised."""
    delivery = Delivery()
    delivery.topics = await _missing_topics(producer, {row.topic for row in rows})
    for wave in waves(row for row in rows if row.topic not in delivery.topics):
        await _send(producer, wave, delivery)
        if delivery.failed:
            break
    return delivery


async def _missing_topics(producer: AIOKafkaProducer, topics: Iterable[str]) -> dict[str, str]:
    """Ask for topics first: a send to one that is not there would wait, and the others behind it."""
    missing: dict[str, str] = {}
    for topic in sorted(topics):
        try:
            await asyncio.wait_for(producer.partitions_for(topic), TOPIC_TIMEOUT)
        except (KafkaError, TimeoutError) as error:
            missing[topic] = str(error) or "Kafka does not know it"
    return missing


async def _send(producer: AIOKafkaProducer, wave: Sequence[Row], delivery: Delivery) -> None:
    sent: dict[Row, Future[Any]] = {}
    try:
        async with asyncio.timeout(DELIVERY_TIMEOUT):
            for row in wave:
                await _send_one(producer, row, sent, delivery)
            if sent:
                await asyncio.wait(sent.values())
    except TimeoutError:
        for row in wave:
            if row not in sent:
                delivery.failed.setdefault(row, _no_answer())
    for row, future in sent.items():
        _sort(row, future, delivery)


async def _send_one(producer: AIOKafkaProducer, row: Row, sent: dict[Row, Future[Any]], delivery: Delivery) -> None:
    try:
        sent[row] = await producer.send(row.topic, key=row.key, value=row.value, headers=row.headers)
    except KafkaError as error:
        delivery.failed[row] = error


def _sort(row: Row, future: Future[Any], delivery: Delivery) -> None:
    if not future.done():
        future.cancel()  # nobody will ask for its answer; the record itself may still arrive
    if future.cancelled():
        delivery.failed[row] = _no_answer()
    elif (error := future.exception()) is None:
        delivery.confirmed.append(row.id)
    else:
        delivery.failed[row] = error if isinstance(error, KafkaError) else KafkaError(repr(error))


def _no_answer() -> KafkaError:
    return KafkaTimeoutError(f"no answer within {DELIVERY_TIMEOUT:.0f} s")


TRY_EVERY = 1.0
"""Seconds between the attempts of a relay that stands by."""


@contextlib.asynccontextmanager
async def our_turn(engine: AsyncEngine, woken: asyncio.Event, well: Well) -> AsyncIterator[AsyncConnection]:
    """Wait for the turn; yields the connection that holds it, in autocommit, on which a put event sets `woken`.

    The turn ends with the connection, however that ends. All of the relay's reading and deleting goes over it, so that
    a relay that lost it without noticing can do neither.
    """
    conn = await engine.connect()
    try:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(put.NOTICE_A_VANISHED_CLIENT)
        while not (await conn.execute(put.TRY_LOCK)).scalar_one():
            well()  # standing by is all there is to do
            await asyncio.sleep(TRY_EVERY)
        await _listen(conn, woken)
        log.info("relaying the outbox")
        yield conn
    finally:
        await conn.invalidate()  # never back into the pool with the lock and the listener
        await conn.close()


async def _listen(conn: AsyncConnection, woken: asyncio.Event) -> None:
    driver = (await conn.get_raw_connection()).driver_connection
    assert driver is not None  # noqa: S101 - the connection is open
    await driver.add_listener(put.CHANNEL, lambda *_: woken.set())


BATCH_ROWS = 500
BATCH_BYTES = 4_000_000
"""A batch's events reach this with the last of them at most: one is 1 MB at most."""
POLL_EVERY = 1.0
"""Seconds without a notification after which the relay looks anyway."""
FINISH_SECONDS = 1.0
"""What a batch in hand gets at a stop, so that a clean restart repeats nothing."""


class Relay:
    """The relay of one process. `run` ends only by an error; what is held back outlives it."""

    def __init__(
        self, engine: AsyncEngine, settings: Settings, health: Health, *, poll_every: float = POLL_EVERY
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._health = health
        self._poll_every = poll_every
        self._held = HeldBack()

    async def run(self, well: Well) -> None:
        """Wait for the turn, then relay until something fails; `well` is called after each batch.

        A fault gives the turn away: another process may reach what this one does not.

        Raises:
            aiokafka.errors.KafkaError: what Kafka did not take.
            sqlalchemy.exc.DBAPIError: the connection is gone, and the turn with it.
        """
        woken = asyncio.Event()
        async with our_turn(self._engine, woken, well) as conn, running_producer(self._settings) as producer:
            while True:
                woken.clear()  # before the read: what is put during it wakes again
                rows = await read_batch(conn, self._held)
                if rows:
                    await _finished_even_if_cancelled(self._relay(conn, producer, rows))
                self._report_topics()
                well()
                if not rows:
                    await conn.execute(put.DELETE, {"ids": []})  # it fails where the server became read-only
                    await wait_for(woken, self._poll_every)

    async def _relay(self, conn: AsyncConnection, producer: AIOKafkaProducer, rows: Sequence[Row]) -> None:
        delivery = await publish(producer, rows)
        if delivery.confirmed:
            await conn.execute(put.DELETE, {"ids": delivery.confirmed})
        self._held.hold_topics(delivery.topics)
        self._held.sort(delivery.failed)
        _raise_first(delivery)

    def _report_topics(self) -> None:
        if topics := self._held.topics():
            named = ", ".join(f"{topic}: {words}" for topic, words in sorted(topics.items()))
            self._health.report("relay", self, f"events wait for topics that take none ({named})")
        else:
            self._health.clear("relay", self)


async def read_batch(conn: AsyncConnection, held: HeldBack) -> list[Row]:
    """Read the oldest events that are not held back; one alone where a batch before was refused for one of its own."""
    values = {"without_rows": sorted(held.rows), "without_topics": sorted(held.topics()), "bytes": BATCH_BYTES}
    found = (await conn.execute(put.READ, values | {"rows": BATCH_ROWS})).all()
    rows = [Row(r.id, r.topic, r.key, r.value, headers_of(r.headers)) for r in found]
    return rows[:1] if rows and rows[0].id <= held.one_by_one_upto else rows


def _raise_first(delivery: Delivery) -> None:
    """A producer that met a refusal is not used again: its sequence numbers have a gap that the broker objects to."""
    for error in delivery.failed.values():
        raise error


async def _finished_even_if_cancelled(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), FINISH_SECONDS)
        raise


@contextlib.asynccontextmanager
async def relay_role(engine: AsyncEngine, settings: Settings, health: Health) -> AsyncIterator[None]:
    """Run the relay beside the caller; its faults stand in `health` under "relay" and are waited out."""
    async with in_background(Relay(engine, settings, health).run, "relay", health):
        yield
