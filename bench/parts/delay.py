"""Delay: from an event's publication until its effect is visible in the other table, at a steady rate."""

from __future__ import annotations

import sys
from typing import NamedTuple

from bench.prober import delays
from bench.quantiles import quantile
from bench.servers import running_servers
from bench.sizes import Sizes
from bench.systems.levelsync import running
from bench.table import Row

_BETWEEN_PROBES = 30


class _Steady(NamedTuple):
    """A steady load: events a second, of which every Nth is a probe, and the targets."""

    rate: int
    every: int
    probes: int
    p50: float | None
    p99: float | None


async def run(sizes: Sizes) -> list[Row]:
    """Measure both rates, the fast one in each round."""
    fast = _Steady(1_000, _BETWEEN_PROBES, sizes.probes, 7, 22)
    slow = _Steady(1, 1, sizes.slow_probes, None, None)
    rows = []
    for load in (one for one in (fast, slow) if one.probes):
        found = [await _once(load) for _ in range(sizes.rounds if load is fast else 1)]
        at = f"{load.rate:,} events/s"
        note = f"{load.probes:,} probes"
        p50, p99 = ([round(quantile(ones, share), 2) for ones in found] for share in (0.5, 0.99))
        rows.append(Row(f"delay at {at}, p50", tuple(p50), "ms", at_most=load.p50, note=note))
        rows.append(Row(f"delay at {at}, p99", tuple(p99), "ms", at_most=load.p99, note=note))
    return rows


async def _once(load: _Steady) -> list[float]:
    events = load.probes * load.every
    async with running_servers() as servers:
        settings = await servers.new(await servers.template(events))
        async with running(servers, settings):
            found = await delays(settings, load.rate, events, load.every)
    print(load, quantile(found, 0.5), quantile(found, 0.99), file=sys.stderr, flush=True)
    return found
