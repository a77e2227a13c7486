"""Measure time, CPU and memory of a drain, for every system from its first license to the last sentinel."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.load import Records
from bench.servers import Servers, connect
from bench.systems.system import System, ids
from service.settings import Settings

_POLL_SECONDS = 0.02
_LONGEST = 600
_STEP = 100_000
_MB = 1_000_000


@dataclass(frozen=True)
class Reading:
    """The clock and the CPU times at one moment, in seconds."""

    at: float
    worker: float
    postgres: float


@dataclass(frozen=True)
class Drained:
    """The figures of a drain. CPU is in seconds for 100,000 events. Memory is the highest of the processes, in MB."""

    events: int
    seconds: float
    rate: float
    worker_cpu: float
    postgres_cpu: float
    memory: float


async def drain(servers: Servers, settings: Settings, system: System, records: Records) -> Drained:
    """Run a system until it has written all of `records`, and return the figures.

    The measurement starts when the first license is visible. What the system wrote by then (its start, its first batch)
    does not count.

    Raises:
        TimeoutError: the system has not finished within ten minutes.
    """
    connection = await connect(settings)
    try:
        before = await connection.fetchval("SELECT coalesce(max(id), 0) FROM public.user_licenses")
        async with asyncio.timeout(_LONGEST), system.run(servers, settings, records) as processes:
            return await _measure(servers, connection, ids(processes), records, before)
    finally:
        await connection.close()


async def _measure(
    servers: Servers, connection: Any, workers: tuple[int, ...], records: Records, before: int
) -> Drained:
    processes = [psutil.Process(worker) for worker in workers]
    await _until(connection, "SELECT EXISTS (SELECT FROM public.user_licenses WHERE id > $1)", before)
    first = _read(processes, servers.postgres_process)
    holders = await connection.fetch("SELECT user_id FROM public.user_licenses WHERE id > $1", before)
    ends = f"SELECT count(*) = {len(records.sentinels)} FROM public.user_licenses WHERE user_id = ANY($1) AND id > $2"
    await _until(connection, ends, list(records.sentinels), before)
    last = _read(processes, servers.postgres_process)
    reached = records.reached(row["user_id"] for row in holders)
    return _figures(records.total - reached, first, last, round(sum(map(peak_memory, workers)), 1))


async def _until(connection: Any, question: str, *values: object) -> None:
    while not await connection.fetchval(question, *values):
        await asyncio.sleep(_POLL_SECONDS)


def _figures(events: int, first: Reading, last: Reading, memory: float) -> Drained:
    seconds, steps = last.at - first.at, max(events, 1) / _STEP
    return Drained(
        events,
        round(seconds, 3),
        round(events / seconds, 1),
        round((last.worker - first.worker) / steps, 3),
        round((last.postgres - first.postgres) / steps, 3),
        memory,
    )


def _read(workers: list[psutil.Process], postgres: psutil.Process) -> Reading:
    return Reading(time.perf_counter(), sum(map(_cpu, workers)), cpu_of_all(postgres))


def peak_memory(worker: int) -> float:
    """Return the kernel's peak of resident memory, or the current value where the kernel has no peak, in MB."""
    status = Path(f"/proc/{worker}/status")
    if not status.exists():
        return round(psutil.Process(worker).memory_info().rss / _MB, 1)
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / _MB, 1)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def cpu_of_all(server: psutil.Process) -> float:
    """Return the CPU seconds of the server, of its processes, and of its processes that have ended."""
    times = server.cpu_times()
    total = float(times.user + times.system + times.children_user + times.children_system)
    for child in server.children():
        try:
            total += _cpu(child)
        except psutil.NoSuchProcess:
            continue
    return total
