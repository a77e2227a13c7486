"""Locks: how long the transaction of a batch lasts during a drain. The application's writes wait at most as long."""

from __future__ import annotations

import asyncio
from datetime import datetime

from bench.load import make_records
from bench.meter import drain
from bench.quantiles import quantile
from bench.servers import connect, running_servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC
from bench.table import Row
from service.settings import Settings

_LOOK_EVERY = 0.003
_MOST = 150
# A transaction gets an id with its first lock: that of the position rows, just before those of the pairs.
_WRITING = """
    SELECT pid, xact_start, extract(epoch FROM clock_timestamp() - xact_start) * 1000 AS age FROM pg_stat_activity
     WHERE application_name = 'levelsync' AND datname = current_database() AND backend_xid IS NOT NULL
"""


async def run(sizes: Sizes) -> list[Row]:
    """Watch one drain in each round. The duration of a transaction is the highest age that was seen."""
    records = make_records(sizes.events)
    found: list[list[float]] = []
    async with running_servers() as servers:
        template = await servers.template(records.users)
        await LEVELSYNC.publish(servers, records)
        for _ in range(sizes.rounds):
            settings = await servers.new(template)
            watcher = asyncio.create_task(_watch(settings))
            await drain(servers, settings, LEVELSYNC, records)
            watcher.cancel()
            found.append(await watcher)
            await servers.drop(settings)
    note = f"{len(found[0])} transactions"
    return [
        Row("a batch's locks, p50", tuple(quantile(ages, 0.5) for ages in found), "ms", note=note),
        Row("a batch's locks, p99", tuple(quantile(ages, 0.99) for ages in found), "ms", at_most=_MOST),
    ]


async def _watch(settings: Settings) -> list[float]:
    """Watch until cancelled, and return the milliseconds of each transaction."""
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
