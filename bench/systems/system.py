"""What a system of the drain is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.load import Records
from bench.servers import Arena
from service.local.process import ServerProcess
from service.settings import Settings

Publish = Callable[[Arena, Records], Awaitable[None]]
"""Puts the records where the system reads them, in the form that it needs; once for all rounds."""
Processes = int | tuple[int, ...]
"""The id of a system's process, or of each of them."""
Run = Callable[[Arena, Settings, Records], AbstractAsyncContextManager[Processes]]
"""Runs the system; yields its processes. What it reads is in its topic already."""


@dataclass(frozen=True)
class System:
    """One way from the events to the licenses."""

    name: str
    publish: Publish
    run: Run
    share: float = 1.0
    """Which share of the events it gets: less where all would take an hour."""
    exact: bool = True
    """Whether it means to end in the model's tables; where it does not, its wrong levels are a figure."""


@asynccontextmanager
async def process(command: Sequence[str], folder: Path, environment: dict[str, str]) -> AsyncIterator[int]:
    """Run a command that ends with the benchmark; yields its process id. Its log is kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs meanwhile
    server = ServerProcess(command, folder / "output.log", environment=environment, stop_seconds=12)
    server.start()
    try:
        yield _child(server)
    finally:
        server.stop()


def _child(server: ServerProcess) -> int:
    guard = server._guard  # noqa: SLF001 - the test servers' own handle
    assert guard is not None  # noqa: S101 - it has been started
    while server.running:
        if children := psutil.Process(guard.pid).children():
            return children[0].pid
    raise RuntimeError(f"{server.command[0]} ended at once:\n{server.log_tail()}")


def ids(processes: Processes) -> tuple[int, ...]:
    """The ids of a system's processes."""
    return (processes,) if isinstance(processes, int) else processes
