"""How background tasks are stopped and calls are retried."""

from __future__ import annotations

import asyncio

import pytest

from service.stream import background
from service.stream.background import backoff, interruptible, retry, stop


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


class Failing:
    """A call that raises its errors, one after the other, and then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.noted: list[tuple[str, int]] = []

    async def attempt(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def note(self, error: Exception, number: int) -> None:
        self.noted.append((str(error), number))


def _passes(error: Exception) -> bool:
    return isinstance(error, OSError)


async def test_a_call_is_retried_until_it_succeeds() -> None:
    """Each error is noted with the number of its attempt."""
    call = Failing(OSError("one"), OSError("two"))
    assert await retry(call.attempt, _passes, call.note, waits=(0, 0)) == "done"
    assert call.noted == [("one", 1), ("two", 2)]


@pytest.mark.parametrize(
    ("error", "noted"), [(LookupError("other"), []), (asyncio.CancelledError(), []), (OSError("same"), [("same", 1)])]
)
async def test_an_error_that_stays_is_raised(error: BaseException, noted: list[tuple[str, int]]) -> None:
    """One of another kind and a cancellation at once, and the last of the attempts."""
    call = Failing(error, error)
    with pytest.raises(type(error)):
        await retry(call.attempt, _passes, call.note, waits=(0, 0), attempts=2)
    assert call.noted == noted


def test_pauses_grow_up_to_a_limit_and_differ() -> None:
    """Processes that failed together do not come back together."""
    assert backoff(0, 1.0, 4.0) == 1.0
    for failures, longest in ((1, 2.0), (2, 4.0), (1000, 4.0)):
        found = {backoff(failures, 1.0, 4.0) for _ in range(20)}
        assert len(found) > 1
        assert all(1.0 <= seconds <= longest for seconds in found)
