"""Server processes that end with their owner, and free ports."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
# These ports are below those of outgoing connections (Linux: from 32768, macOS: from 49152). An outgoing connection
# could take the port while a server restarts, and a client that retries a port of that range can connect to itself.
_FIRST, _LAST = 15_000, 32_000
_ATTEMPTS = 100


def free_port() -> int:
    """Return a port that nobody listens on.

    Raises:
        OSError: all of many attempts found a port in use.
    """
    for _ in range(_ATTEMPTS):
        port = random.randint(_FIRST, _LAST)  # noqa: S311 - no secret
        if _is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST} on {HOST}")


def answers(port: int) -> bool:
    """Return whether something accepts connections on the port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


_GUARD = Path(__file__).with_name("guard.py")
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 4000


class EmbeddedError(Exception):
    """An embedded server cannot run. The text contains the reason and the end of the server's log."""


@dataclass
class ServerProcess:
    """One server, started through `guard.py`. Its output is appended to `log`."""

    command: Sequence[str]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10
    """How long the server may take to stop before it is killed."""
    environment: Mapping[str, str] | None = None
    """Its environment. None: the owner's."""
    user: tuple[int, int] | None = None
    """User and group id to run as. None: the owner's."""
    folder: Path | None = None
    """The working folder. None: the owner's."""
    _guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, without waiting until it can be used (`wait_until`)."""
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-S", str(_GUARD), json.dumps(self._options()), *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,  # only the owner handles Ctrl-C in its terminal
            )

    def stop(self) -> None:
        """Stop the server, if it runs. That takes at most about twice `stop_seconds`."""
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        guard.stdin.close()
        try:
            guard.wait(2 * self.stop_seconds + 1)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready()` returns true.

        Raises:
            EmbeddedError: the server ended, or was not ready within `timeout` seconds and was stopped.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running or time.monotonic() > deadline:
                reason = f"was not ready within {timeout:g} s" if self.running else "ended while it started"
                self.stop()
                raise EmbeddedError(f"{Path(self.command[0]).name} {reason}; the end of {self.log}:\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._guard is not None and self._guard.poll() is None

    def log_tail(self) -> str:
        """Return the end of the server's output."""
        return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if self.log.exists() else ""

    def _options(self) -> dict[str, float]:
        options: dict[str, float] = {"stop_signal": int(self.stop_signal), "stop_seconds": self.stop_seconds}
        if self.user is not None:
            options |= {"uid": self.user[0], "gid": self.user[1]}
        return options


class Server:
    """A server that can be started and stopped, also as a context manager in plain and in async code."""

    _process: ServerProcess | None = None

    def start(self) -> None:
        """Start the server and wait until it can be used."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the server and wait until it has ended."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)
