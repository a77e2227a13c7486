"""Locks: how long a batch's transaction lasts while a drain runs, which is as long as the application's writes wait."""

from __future__ import annotations

import asyncio
from datetime import datetime

from bench.load import make_records
from bench.meter import drain
from bench.quantiles import quantile
from bench.servers import connect, servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC
from bench.table import Row
from service.settings import Settings

_LOOK_EVERY = 0.003
_MOST = 150
# A transaction has an id from its first lock on: of the position rows, just before the pairs' own.
_WRITING = """
    SELECT pid, xact_start, extract(epoch FROM clock_timestamp() - xact_start) * 1000 AS age FROM pg_stat_activity
     WHERE application_name = 'levelsync' AND datname = current_database() AND backend_xid IS NOT NULL
"""


async def run(sizes: Sizes) -> list[Row]:
    """Watch one drain a round; a duration is the highest age at which a transaction was seen."""
    records = make_records(sizes.events)
    found: list[list[float]] = []
    async with servers() as arena:
        template = await arena.template(records.users)
        await LEVELSYNC.publish(arena, records)
        for _ in range(sizes.rounds):
            settings = await arena.new(template)
            watcher = asyncio.create_task(_watch(settings))
            await drain(arena, settings, LEVELSYNC, records)
            watcher.cancel()
            found.append(await watcher)
            await arena.drop(settings)
    note = f"{len(found[0])} transactions"
    return [
        Row("a batch's locks, p50", tuple(quantile(ages, 0.5) for ages in found), "ms", note=note),
        Row("a batch's locks, p99", tuple(quantile(ages, 0.99) for ages in found), "ms", at_most=_MOST),
    ]


async def _watch(settings: Settings) -> list[float]:
    """The milliseconds that each transaction took, until cancelled."""
    connection = await connect(settings)
    ages: dict[tuple[int, datetime], float] = {}
    try:
        while True:
            for pid, start, age in await connection.fetch(_WRITING):
                ages[pid, start] = float(age)
            await asyncio.sleep(_LOOK_EVERY)
    except asyncio.CancelledError:
        return list(ages.values())
    finally:
        await connection.close()
