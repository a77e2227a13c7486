"""The description of a system of the drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.load import Records
from bench.servers import Servers
from service.local.process import ServerProcess
from service.settings import Settings

Publish = Callable[[Servers, Records], Awaitable[None]]
"""Writes the records to the place where the system reads them, in the form that it needs, once for all rounds."""
Processes = int | tuple[int, ...]
"""The id of a system's process, or of each of them."""
Run = Callable[[Servers, Settings, Records], AbstractAsyncContextManager[Processes]]
"""Runs the system, and yields the ids of its processes. Its topic is already full."""


@dataclass(frozen=True)
class System:
    """A program that reads the events and writes the licenses."""

    name: str
    publish: Publish
    run: Run
    share: float = 1.0
    """The share of the events that it gets. It is below 1 where all of them would take an hour."""
    exact: bool = True
    """Whether it is meant to write exactly the model's tables. For other systems, the wrong levels are a figure."""


@asynccontextmanager
async def process(command: Sequence[str], folder: Path, environment: dict[str, str]) -> AsyncIterator[int]:
    """Run a command that ends with the benchmark, and yield its process id. `folder` gets its log."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs at this time
    server = ServerProcess(command, folder / "output.log", environment=environment, stop_seconds=12)
    server.start()
    try:
        yield _child(server)
    finally:
        server.stop()


def _child(server: ServerProcess) -> int:
    guard = server._guard  # noqa: SLF001 - the handle of the test servers
    assert guard is not None  # noqa: S101 - it has been started
    while server.running:
        if children := psutil.Process(guard.pid).children():
            return children[0].pid
    raise RuntimeError(f"{server.command[0]} ended at once:\n{server.log_tail()}")


def ids(processes: Processes) -> tuple[int, ...]:
    """Return the ids of the processes of a system as a tuple."""
    return (processes,) if isinstance(processes, int) else processes
