"""Running something that must clean up behind itself, whatever signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_until_signal(main: Coroutine[Any, Any, T]) -> T | None:
    """Run `main` to its end; SIGTERM or SIGHUP cancels it once, and None is returned when it has cleaned up.

    A second signal is not heard: it would cut the cleaning up short, and leave processes behind.

    Raises:
        KeyboardInterrupt: it was Ctrl-C instead.
    """
    heard: list[signal.Signals] = []
    result = asyncio.run(_until_signal(main, heard))
    if signal.SIGINT in heard:
        raise KeyboardInterrupt
    return result


async def _until_signal(main: Coroutine[Any, Any, T], heard: list[signal.Signals]) -> T | None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def hear(name: signal.Signals) -> None:
        heard.append(name)
        stop.set()

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, hear, name)
    work, stopped = asyncio.create_task(main), asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not work.done():
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return None
    return work.result()
