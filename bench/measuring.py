"""Time, CPU and memory of a drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import asyncpg
import psutil

from service.settings import Settings
from tests.infrastructure.levelsync_process import LevelsyncProcess

_POLL_SECONDS = 0.02
_LONGEST_SECONDS = 600
_STEP = 100_000
_MB = 1_000_000


@dataclass(frozen=True)
class Reading:
    """The clocks at one moment, in seconds, and the records applied so far."""

    at: float
    applied: int
    worker: float
    postgres: float


class Meter:
    """Reads `applied_offsets` and the processes' clocks."""

    def __init__(self, settings: Settings, process: LevelsyncProcess, postgres: Any) -> None:
        self._url = settings.database_url.get_secret_value()
        self._process = process
        self._worker = psutil.Process(process.pid)
        guard = postgres._process._guard  # noqa: SLF001 - the test servers' own handle
        self._postgres = psutil.Process(guard.pid).children()[0]
        self._peak = 0

    async def __aenter__(self) -> Meter:
        self._connection = await asyncpg.connect(self._url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def until_reached(self, ends: Mapping[tuple[str, int], int]) -> dict[str, Any]:
        """Wait until `applied_offsets` are `ends`, and say what it took from now on.

        Raises:
            RuntimeError: the process ended, or did not get there within ten minutes.
        """
        first = self._read(await self._applied(ends))
        last = first
        while last.applied < sum(ends.values()):
            if not self._process.running or last.at - first.at > _LONGEST_SECONDS:
                raise RuntimeError(f"stood at {last.applied} of {sum(ends.values())}:\n{self._process.output[-4000:]}")
            await asyncio.sleep(_POLL_SECONDS)
            last = self._read(await self._applied(ends))
        return _figures(first, last, self._peak_memory())

    async def _applied(self, ends: Mapping[tuple[str, int], int]) -> int:
        rows = await self._connection.fetch("SELECT topic, partition, next_offset FROM levelsync.applied_offsets")
        return sum(row["next_offset"] for row in rows if (row["topic"], row["partition"]) in ends)

    def _read(self, applied: int) -> Reading:
        self._peak = max(self._peak, self._worker.memory_info().rss)
        return Reading(time.perf_counter(), applied, _cpu(self._worker), _cpu_of_all(self._postgres))

    def _peak_memory(self) -> int:
        """The kernel's own high-water mark where it keeps one, in bytes; else the highest that was seen."""
        status = Path(f"/proc/{self._worker.pid}/status")
        if not status.exists():
            return self._peak
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def _figures(first: Reading, last: Reading, peak: int) -> dict[str, Any]:
    drained, seconds = last.applied - first.applied, last.at - first.at
    steps = max(drained, 1) / _STEP
    return {
        "drained": drained,
        "seconds": round(seconds, 3),
        "events_per_second": round(drained / seconds, 1) if seconds else 0.0,
        "worker_cpu_per_100k": round((last.worker - first.worker) / steps, 3),
        "postgres_cpu_per_100k": round((last.postgres - first.postgres) / steps, 3),
        "peak_memory_mb": round(peak / _MB, 1),
    }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _cpu_of_all(server: psutil.Process) -> float:
    """The server, its processes now, and those that have ended (counted by the system when their parent saw it)."""
    times = server.cpu_times()
    total = float(times.user + times.system + times.children_user + times.children_system)
    for child in server.children():
        try:
            total += _cpu(child)
        except psutil.NoSuchProcess:
            continue
    return total
