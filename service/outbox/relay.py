"""The role `relay`: one process at a time publishes the outbox and deletes what Kafka confirmed.

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
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.outbox import put
from service.outbox.publish import Delivery, HeldBack, publish
from service.outbox.put import Row, headers_of
from service.settings import Settings
from service.stream.background import Well, in_background, wait_for
from service.stream.producer import running_producer
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
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
