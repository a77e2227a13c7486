"""A stop ends a batch that is being retried, at whatever point of it the stop comes."""

from __future__ import annotations

import asyncio

from service.stream.retry import until_applied
from service.telemetry.health import Health


class Owner:
    """A consumer that still owns its batch."""

    retrying = False
    owns_batch = True


async def test_a_stop_ends_an_attempt_that_hangs() -> None:
    """A cancellation is no fault that may pass: retried, it would keep the process from leaving."""
    began = asyncio.Event()

    async def hangs() -> None:
        began.set()
        await asyncio.Event().wait()

    batch = asyncio.create_task(until_applied(hangs, Owner(), Health()))
    await asyncio.wait_for(began.wait(), 30)
    batch.cancel()
    ended, _ = await asyncio.wait({batch}, timeout=10)
    try:
        assert ended == {batch}
        assert batch.cancelled()
    finally:
        while not batch.done():  # a retry that swallows the stop ends only while it waits for its next attempt
            batch.cancel()
            await asyncio.sleep(0.001)
