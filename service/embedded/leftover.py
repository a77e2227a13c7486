"""What a PostgreSQL that did not stop by itself leaves in its data folder."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from service.embedded.process import EmbeddedError

_WAIT_SECONDS = 15
"""Must exceed the time that the guard gives a server to stop (`ServerProcess.stop_seconds`)."""


def clear_leftover(data: Path) -> None:
    """Wait for a server that is just stopping, and remove the pid file of one that is gone.

    PostgreSQL itself believes such a file as soon as any process has that number, which after a restart of a
    container is likely.

    Raises:
        EmbeddedError: a server runs in `data`.
    """
    pid_file = data / "postmaster.pid"
    deadline = time.monotonic() + _WAIT_SECONDS
    while (pid := _read_pid(pid_file)) is not None and _is_server_of(pid, data):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"another PostgreSQL (process {pid}) runs in {data}")
        time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def _read_pid(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _is_server_of(pid: int, data: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and Path(process.cwd()) == data.resolve()
    except psutil.Error:
        return False
