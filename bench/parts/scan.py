"""Scan: a whole dry run from request to report, compared with one raw full join and with reladiff."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from bench.meter import peak_memory
from bench.pairs import fill
from bench.servers import connect, running_servers
from bench.sizes import Sizes
from bench.systems import reladiff
from bench.systems.reconciler import reconcile, reconciler
from bench.table import Row, ratio
from service.settings import Settings

_DRIFTED = 1000
"""The pairs of one user in so many disagree: 0.1 %."""
_RAW = """
    SELECT count(*) FROM public.specialization_progress p FULL OUTER JOIN public.user_licenses l
        ON l.user_id = p.student_id AND l.specialization_type = p.specialization_id
     WHERE p.current_level IS DISTINCT FROM l.current_level
"""
_MOST_MEMORY = 100
_LARGE = 5_000_000
_TIMES_RAW = {False: 2.5, True: 1.5}
_TIMES_FASTER = 4


@dataclass
class _Seconds:
    """The seconds of each round, and the peak memory of the worker."""

    ours: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    reladiff: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


async def run(sizes: Sizes) -> list[Row]:
    """Measure each number of pairs with new servers."""
    return [row for pairs in sizes.pairs for row in _rows(pairs, await _measure(pairs, sizes.rounds))]


async def _measure(pairs: int, rounds: int) -> _Seconds:
    seconds = _Seconds()
    async with running_servers() as servers:
        template = await servers.template(pairs // 2, fill(1, pairs // 2, _DRIFTED))
        settings = await servers.new(template, reconcile_grace=timedelta(0))
        for _ in range(rounds):
            async with reconciler(servers, settings) as worker:
                seconds.raw.append(await _raw(settings, pairs))
                report = await reconcile(settings)
                assert report.counts["scanned"] == pairs, report  # noqa: S101 - a wrong scan does not count
                assert report.counts["mismatched"] == pairs // 2 // _DRIFTED * 2, report  # noqa: S101 - as above
                seconds.ours.append(report.seconds)
                seconds.memory.append(peak_memory(worker))
            seconds.reladiff.append(reladiff.seconds(settings, pairs // 2 // _DRIFTED * 2))
            print(pairs, seconds, file=sys.stderr, flush=True)
    return seconds


async def _raw(settings: Settings, pairs: int) -> float:
    connection = await connect(settings)
    await connection.execute("SET max_parallel_workers_per_gather = 0")
    began = time.perf_counter()
    found = await connection.fetchval(_RAW)
    taken = round(time.perf_counter() - began, 3)
    await connection.close()
    assert found == pairs // 2 // _DRIFTED * 2, found  # noqa: S101 - as above
    return taken


def _rows(pairs: int, seconds: _Seconds) -> Iterator[Row]:
    of = f"{pairs:,} pairs"
    yield Row(f"dry run, {of}", tuple(seconds.ours), "s")
    yield Row(f"raw full join, {of}", tuple(seconds.raw), "s")
    yield Row(f"reladiff, {of}", tuple(seconds.reladiff), "s")
    yield ratio(f"dry run : raw, {of}", seconds.ours, seconds.raw, at_most=_TIMES_RAW[pairs >= _LARGE])
    yield ratio(f"reladiff : dry run, {of}", seconds.reladiff, seconds.ours, at_least=_TIMES_FASTER)
    yield Row(f"the worker's peak memory, {of}", tuple(seconds.memory), "MB", at_most=_MOST_MEMORY)
