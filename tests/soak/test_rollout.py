"""How long a partition stands still under load when processes are restarted in turn, or killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.settings import Settings
from tests.support.load import Load, make_load
from tests.support.model import LEVELED_UP
from tests.support.process import LevelsyncProcess, Make
from tests.support.published import Setup
from tests.support.tables import read

pytestmark = [pytest.mark.real_broker, pytest.mark.soak, pytest.mark.usefixtures("topics")]
A_SECOND = 300
POSITIONS = "SELECT partition, next_offset FROM levelsync.applied_offsets WHERE topic = 'progress.leveled-up'"


@asynccontextmanager
async def under_load(setup: Setup) -> AsyncIterator[dict[int, float]]:
    """Publish 300 events a second; yields the longest standstill of each partition, in seconds."""
    longest: dict[int, float] = {}
    tasks = [asyncio.create_task(_feed(setup)), asyncio.create_task(_watch(setup, longest))]
    try:
        yield longest
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(setup: Setup) -> None:
    load = make_load(Load(60_000, 500, seed=51, kinds=(LEVELED_UP,)))
    for start in range(0, len(load), A_SECOND // 10):
        began = time.monotonic()
        await asyncio.shield(setup.publish(load[start : start + A_SECOND // 10]))
        await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - began)))


async def _watch(setup: Setup, longest: dict[int, float]) -> None:
    moved: dict[int, tuple[int, float]] = {}
    while True:
        rows = await read(setup.engine, POSITIONS)
        now = time.monotonic()
        for partition, offset in rows:
            before = moved.get(partition)
            if before is None or before[0] != offset:
                moved[partition] = (offset, now)
            else:
                longest[partition] = max(longest.get(partition, 0.0), now - before[1])
        await asyncio.sleep(0.1)


@asynccontextmanager
async def three_under_load(settings: Settings, make: Make) -> AsyncIterator[tuple[list[LevelsyncProcess], list[float]]]:
    """Run three processes under load; afterwards the list has the longest standstill of a partition, in seconds."""
    processes, standstill = [make(settings) for _ in range(3)], list[float]()
    async with Setup(settings, users=500) as setup:
        for process in processes:
            await process.start()
        async with under_load(setup) as longest:
            yield processes, standstill
        await setup.assert_ended()
    standstill.append(max(longest.values()))
    print(f"longest standstill of a partition: {standstill[0]:.1f} s")  # noqa: T201 - a measurement


async def test_a_rolling_restart_stops_no_partition_for_5_s(settings: Settings, levelsync_process: Make) -> None:
    """Each process leaves, and its successor joins before the next one leaves."""
    async with three_under_load(settings, levelsync_process) as (processes, standstill):
        for process in processes:
            assert await process.terminate() == 0
            await process.start()
    assert standstill[0] <= 5


async def test_a_kill_stops_a_partition_for_11_s_at_most(settings: Settings, levelsync_process: Make) -> None:
    """The group waits ten seconds for a dead member. Two of three are killed, because one may own no partition."""
    async with three_under_load(settings, levelsync_process) as (processes, standstill):
        for process in processes[:2]:
            process.kill()
        await asyncio.sleep(15)  # the time that is measured
    assert 5 < standstill[0] <= 11
