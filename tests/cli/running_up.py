"""`levelsync up` as a process in a folder of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.cli.command import clean
from tests.infrastructure.waiting import eventually

READY = "In another terminal"


class Up:
    """One `levelsync up`; its folder is below `folder`, its output in files beside it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._answers, self._remarks = folder.parent / "answers.log", folder.parent / "remarks.log"
        with self._answers.open("wb") as answers, self._remarks.open("wb") as remarks:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "service", "up", *arguments],
                cwd=folder,
                env=clean(),
                stdout=answers,
                stderr=remarks,
            )

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return self._answers.read_text()

    @property
    def stderr(self) -> str:
        """What it has logged."""
        return self._remarks.read_text()

    async def ready(self) -> None:
        """Wait until it says where everything is."""
        await self.until(lambda: READY in self.stdout)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, for as long as it runs."""

        def came() -> bool:
            assert self.process.poll() is None, f"it ended before that:\n{self.stderr}"
            assert condition(), f"so far:\n{self.stdout}\n{self.stderr}"
            return True

        await eventually(came, timeout=60)

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def children(self) -> list[psutil.Process]:
        """Every process that it has started, theirs included."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def up(folder: Path, *arguments: str) -> Iterator[Up]:
    """Start it; it ends with the test."""
    folder.mkdir(exist_ok=True)
    started = Up(folder, *arguments)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.end(signal.SIGKILL)
