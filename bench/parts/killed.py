"""Killed: a healing run whose worker is killed with SIGKILL in the middle of the run and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

from bench.pairs import fill
from bench.servers import Servers, running_servers
from bench.sizes import Sizes
from bench.systems.reconciler import Report, reconcile, reconciler
from bench.table import Row
from service.settings import Settings

_PAIRS = 1_000_000
_DRIFTED = 1000
_INTO_THE_RUN = 0.7
"""Seconds after the request, in the middle of the scan."""


async def run(sizes: Sizes) -> list[Row]:
    """Heal the same drift in each round, once without and once with a kill. Both must heal every pair once."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    async with running_servers() as servers:
        template = await servers.template(_PAIRS // 2, fill(1, _PAIRS // 2, _DRIFTED))
        for _ in range(sizes.rounds):
            for killed, found in seconds.items():
                settings = await servers.new(template, reconcile_grace=timedelta(0))
                found.append(await _heal(servers, settings, killed=killed))
                await servers.drop(settings)
                await servers.empty_topics()
    of = f"{_PAIRS:,} pairs"
    return [
        Row(f"healing run, {of}", tuple(seconds[False]), "s"),
        Row(f"healing run whose worker is killed, {of}", tuple(seconds[True]), "s", note="with the new worker's start"),
    ]


async def _heal(servers: Servers, settings: Settings, *, killed: bool) -> float:
    async with reconciler(servers, settings) as worker:
        running = asyncio.create_task(reconcile(settings, execute_it=True))
        if killed:
            await asyncio.sleep(_INTO_THE_RUN)
            os.kill(worker, signal.SIGKILL)
            async with reconciler(servers, settings):
                return _checked(await running)
        return _checked(await running)


def _checked(report: Report) -> float:
    drifted = _PAIRS // _DRIFTED
    right = report.counts["healed"] == report.counts["mismatched"] == drifted and report.counts["scanned"] == _PAIRS
    assert right, report  # noqa: S101 - the figures of a wrong run do not count
    return report.seconds
