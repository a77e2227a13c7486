"""`levelsync` in processes: commands, and services that tests kill, stop and restart."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import psutil
from pydantic import SecretStr

from service.local.process import ServerProcess
from service.settings import PREFIX, Settings
from tests.support import preloaded
from tests.support.repository import ROOT
from tests.support.waiting import eventually

_URL = re.compile(r"http://[^\s\"',}]+")


def serve_environment(settings: Settings) -> dict[str, str]:
    """Return the given settings as environment variables, without the caller's own LEVELSYNC_ variables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return ours | {f"{PREFIX}{name.upper()}": _as_text(value) for name, value in given.items() if value is not None}


def _as_text(value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case timedelta():
            return f"{value.total_seconds():f}s"
        case datetime():
            return value.isoformat()
        case dict():
            return json.dumps(value)
        case _:
            return str(value)


class LevelsyncProcess:
    """One `levelsync serve`. It ends with the tests, whatever ends them."""

    def __init__(self, settings: Settings, folder: Path, arguments: Sequence[str]) -> None:
        self._folder = folder
        self._written_before = 0
        self._server: ServerProcess | preloaded.Server = ServerProcess(
            [sys.executable, "-m", "service", *arguments],
            folder / "output.log",
            environment=serve_environment(settings),
            stop_seconds=12,
            folder=folder,  # without a `.env` of the checkout
        )

    async def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it is ready, unless `ready` is False."""
        self._written_before = len(self.output)
        self._server.start()
        if ready:
            await self.wait_ready()

    async def wait_ready(self) -> None:
        async def is_ready() -> bool:
            if not self.running:
                raise RuntimeError(f"levelsync ended while it started:\n{self.output}")
            return self.url is not None and (await self.get("/readyz"))[0] == 200

        await eventually(is_ready, 60)

    async def get(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(http_get, f"{self.url}{path}")

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.send_signal(signal.SIGKILL)
        self._guard.wait(10)
        self.stop()

    async def terminate(self, timeout: float = 12) -> int:  # noqa: ASYNC109 - a test's own bound
        """Send SIGTERM; returns the exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended within `timeout` seconds.
        """
        self.send_signal(signal.SIGTERM)
        return await self.wait(timeout)

    async def wait(self, timeout: float = 30) -> int:  # noqa: ASYNC109 - a test's own bound
        """Wait until it ends by itself; returns the exit code."""
        code = await asyncio.to_thread(self._guard.wait, timeout)
        self.stop()
        return code

    def stop(self) -> None:
        self._server.stop()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its guard."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """The process id: the guard's only child."""
        deadline = time.monotonic() + 30
        while not (children := psutil.Process(self._guard.pid).children()):
            assert time.monotonic() < deadline, f"levelsync does not run:\n{self.output}"
            time.sleep(0.01)
        return children[0].pid

    @property
    def _guard(self) -> subprocess.Popen[bytes] | preloaded.Command:
        assert self._server._guard is not None, "levelsync was not started, or is stopped"
        return self._server._guard

    @property
    def memory_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def running(self) -> bool:
        return self._server.running

    @property
    def output(self) -> str:
        """What it has written to stdout and stderr, over all its starts."""
        log = self._folder / "output.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    @property
    def url(self) -> str | None:
        """The URL of its HTTP server, or None until it has logged one since its last start."""
        lines = self.output[self._written_before :].splitlines()
        found = [match[0] for line in lines if "serving" in line and (match := _URL.search(line))]
        return found[-1] if found else None


Make = Callable[..., LevelsyncProcess]
"""The fixture `levelsync_process`: creates a process that is not started yet."""


class ForkedProcess(LevelsyncProcess):
    """The same in a fork, without the time of its imports. Its memory differs from a process of its own."""

    def __init__(self, settings: Settings, folder: Path, arguments: Sequence[str]) -> None:
        super().__init__(settings, folder, arguments)
        log = folder / "output.log"
        self._server = preloaded.Server(["levelsync", *arguments], serve_environment(settings), folder, log)

    @property
    def pid(self) -> int:
        return self._guard.pid


def http_get(url: str) -> tuple[int, str]:
    """GET an address; returns status and body, or (0, reason) without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own loopback URL
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


Result = preloaded.Result


def levelsync(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str | None = None
) -> Result:
    """Run `levelsync` to its end, with no variable of the caller but those of `env`."""
    return preloaded.run("levelsync", *arguments, env=clean(env), cwd=cwd, stdin=stdin)


def assert_refused(run: Result, code: int, *parts: object) -> None:
    """Check that a command printed nothing, and complained with these parts and without a traceback."""
    assert (run.returncode, run.stdout) == (code, ""), run.stderr
    assert [part for part in parts if str(part) not in run.stderr] == [], run.stderr
    assert "Traceback" not in run.stderr


def clean(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without the caller's settings."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONPATH": str(ROOT)} | dict(env or {})


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """Return a test's settings as a command's environment, with `more` of them by their names."""
    given = {name: value for name, value in serve_environment(settings).items() if name.startswith(PREFIX)}
    return given | {f"{PREFIX}{name}": value for name, value in more.items()}


class Up:
    """One `levelsync up` in `folder`, with its output in files beside it."""

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
        return self._answers.read_text()

    @property
    def stderr(self) -> str:
        return self._remarks.read_text()

    async def ready(self) -> None:
        """Wait until it prints where its servers are."""
        await self.until(lambda: "In another terminal" in self.stdout)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition while it runs."""

        def came() -> bool:
            assert self.process.poll() is None, f"it ended before that:\n{self.stderr}"
            assert condition(), f"so far:\n{self.stdout}\n{self.stderr}"
            return True

        await eventually(came, timeout=60)

    def end(self, number: signal.Signals) -> int:
        """Send a signal; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def children(self) -> list[psutil.Process]:
        """Return every process below it."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def up(folder: Path, *arguments: str) -> Iterator[Up]:
    """Run `levelsync up` inside the block."""
    folder.mkdir(exist_ok=True)
    started = Up(folder, *arguments)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.end(signal.SIGKILL)
