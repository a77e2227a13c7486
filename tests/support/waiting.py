"""Bounded waits on a condition, instead of sleeps."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")
_POLL_SECONDS = 0.05


@overload
def eventually(condition: Callable[[], Awaitable[T]], timeout: float = 30) -> Coroutine[Any, Any, T]: ...
@overload
def eventually(condition: Callable[[], T], timeout: float = 30) -> Coroutine[Any, Any, T]: ...
async def eventually(condition: Callable[[], Any], timeout: float = 30) -> Any:  # noqa: ASYNC109 - a test's own bound
    """Call `condition` every 50 ms until it is true, and return its value. A failed assertion counts as false.

    Raises:
        AssertionError: it was not true within `timeout` seconds. The message has its last value or failure.
    """
    deadline = time.monotonic() + timeout
    while True:
        failure: AssertionError | None = None
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            said = str(failure) if failure else f"{value!r}"
            raise AssertionError(f"not within {timeout:g} s: {said}") from failure
        await asyncio.sleep(_POLL_SECONDS)
