"""A fault that may pass is retried with exponential backoff and jitter for as long as it lasts (law 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from service.faults import InstallationFault, Kind, read_fault
from service.stream.positions import DatabaseWentBack, Evicted, TopicRecreated
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
