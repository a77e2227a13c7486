"""One relay at a time: whose turn it is, PostgreSQL decides by a lock of the session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.background import Well
from service.outbox import sql

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
        await conn.execute(sql.NOTICE_A_VANISHED_CLIENT)
        while not (await conn.execute(sql.TRY_LOCK)).scalar_one():
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
    await driver.add_listener(sql.CHANNEL, lambda *_: woken.set())
