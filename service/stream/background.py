"""Functions that retry, await and stop the tasks of a process.

`retry` repeats one call until it succeeds. `in_background` restarts endless work after an error. Both wait longer after
each failure, with jitter, so that processes with the same fault do not retry at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog
from aiokafka.errors import KafkaError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_never,
    wait_random_exponential,
)

from service.faults import Kind, read_fault
from service.telemetry import metrics
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
ReportHealthy = Callable[[], None]
"""A function that work calls after a success. It clears the fault that was reported before."""
SHORTEST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Limits of the wait before the next attempt, in seconds. The maximum is short, so that work continues soon after a
fault has ended.
"""
CANCEL_AGAIN = 2.0
"""Seconds that a task has to end after a cancellation, before it is cancelled again."""
T = TypeVar("T")


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task, repeatedly until it has ended, because libraries sometimes swallow a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN)
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it: the caller does not need the outcome


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and stop it when the caller is cancelled, even if a library swallows the cancellation."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
        return task.result()
    finally:
        await stop(task)


class StopSignal:
    """The first signal that stops this process, received in the running event loop.

    Later signals are ignored, because they would interrupt the clean-up and leave processes behind.
    """

    def __init__(self, *names: signal.Signals) -> None:
        self.received: signal.Signals | None = None
        self._event = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in names:
            loop.add_signal_handler(name, self._receive, name)

    def _receive(self, name: signal.Signals) -> None:
        self.received = self.received or name
        self._event.set()

    async def or_end_of(self, work: asyncio.Task[Any]) -> None:
        """Wait until a signal arrives or `work` ends."""
        stopped = asyncio.create_task(self._event.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until `event` is set, for at most `seconds`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def until(look: Callable[[], Awaitable[T | None]], every: float, seconds: float = math.inf) -> T | None:
    """Call `look` every `every` seconds until it returns a value. Return None after `seconds` without one.

    A cancellation during a call of `look` ends the wait, even if a library swallowed it.
    """
    task, deadline = asyncio.current_task(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := await look()) is not None:
            return found
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        await asyncio.sleep(every)
    return None


async def retry(
    attempt: Callable[[], Awaitable[T]],
    is_retried: Callable[[Exception], bool],
    before_wait: Callable[[Exception, int], None],
    *,
    waits: tuple[float, float] = (SHORTEST_WAIT, LONGEST_WAIT),
    attempts: int | None = None,
) -> T:
    """Call `attempt` until it succeeds. Before each wait, call `before_wait` with the error and the attempt's number.

    `waits` are the first and the greatest upper limit of a wait, in seconds.

    Raises:
        Exception: An error of `attempt` for which `is_retried` is false, or the error of the last of `attempts`.
    """

    def is_retryable(error: BaseException) -> bool:
        # Do not retry a cancellation: tenacity treats it as an error, and the process could not stop.
        return isinstance(error, Exception) and is_retried(error)

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Exception):
            before_wait(error, state.attempt_number)

    retrying = AsyncRetrying(
        stop=stop_never if attempts is None else stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=waits[0], max=waits[1]),
        retry=retry_if_exception(is_retryable),
        before_sleep=before_sleep,
        reraise=True,
    )
    return await retrying(attempt)


def backoff(failures: int, shortest: float = SHORTEST_WAIT, longest: float = LONGEST_WAIT) -> float:
    """Return a random number of seconds to wait. Its limit doubles with each failure in a row, up to `longest`."""
    return random.uniform(shortest, min(shortest * 2 ** min(failures, 16), longest))  # noqa: S311 - no secret


@contextlib.asynccontextmanager
async def in_background(
    work: Callable[[ReportHealthy], Awaitable[None]], component: str, health: Health
) -> AsyncIterator[None]:
    """Run `work` beside the caller and cancel it at the end. Start it again whenever it raises an error.

    The error is reported in `health` under `component` until `work` calls its argument.
    """
    task = asyncio.create_task(_restart_on_error(work, component, health))
    try:
        yield
    finally:
        await stop(task)


async def _restart_on_error(work: Callable[[ReportHealthy], Awaitable[None]], component: str, health: Health) -> None:
    faults = 0

    def report_healthy() -> None:
        nonlocal faults
        faults = 0
        health.clear(component, work)

    while True:
        try:
            await work(report_healthy)
        except Exception as error:  # noqa: BLE001 - nothing else restarts it
            faults += 1
            _report(error, component, work, health)
            await asyncio.sleep(backoff(faults))


def _report(error: Exception, component: str, work: object, health: Health) -> None:
    cause, message = cause_of(error)
    metrics.RETRIES.labels(cause).inc()
    health.report(component, work, f"{cause}: {message}")
    log_line = log.error if cause == Kind.INSTALLATION.value else log.warning
    log_line("work failed and is retried", component=component, cause=cause, error=message, kind=type(error).__name__)


def cause_of(error: Exception) -> tuple[str, str]:
    """Return the label for `levelsync_retries_total`, and a message."""
    if isinstance(error, KafkaError):
        return "kafka_unavailable", str(error)
    fault = read_fault(error)
    return (fault.kind if fault.kind is not Kind.RECORD else Kind.INSTALLATION).value, fault.message
