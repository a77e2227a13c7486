"""How background tasks are stopped."""

from __future__ import annotations

import asyncio

import pytest

from service.stream import background
from service.stream.background import interruptible, stop


async def deaf(times: int) -> None:
    """Act like a library that treats its first cancellations as errors of its own."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "CANCEL_AGAIN", 0.01)


async def test_a_task_that_loses_cancellations_is_stopped_all_the_same() -> None:
    task = asyncio.create_task(deaf(times=3))
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await stop(task)
    assert task.cancelled()


async def test_a_caller_that_is_cancelled_ends_what_it_awaits_even_where_a_cancellation_is_lost() -> None:
    caller = asyncio.create_task(interruptible(deaf(times=3)))
    await asyncio.sleep(0.01)
    caller.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait({caller})
    assert caller.cancelled()


async def test_what_was_awaited_raises_as_if_it_had_been_awaited_plainly() -> None:
    """The watchdog ends the service by an error."""

    async def fail() -> None:
        raise LookupError("stalled")

    with pytest.raises(LookupError, match="stalled"):
        await interruptible(fail())
