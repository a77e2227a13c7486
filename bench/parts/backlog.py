"""Backlog: the memory of the process with a backlog ten times as long (the same records, published ten times)."""

from __future__ import annotations

from bench.load import Records, make_records
from bench.meter import drain
from bench.servers import running_servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC
from bench.table import Row

_MOST = 130


async def run(sizes: Sizes) -> list[Row]:
    """Drain the long backlog once."""
    records = make_records(sizes.events)
    earlier = Records({number: ones[:-1] for number, ones in records.partitions.items()}, records.users, ())
    async with running_servers() as servers:
        settings = await servers.new(await servers.template(records.users))
        for _ in range(max(0, sizes.backlog // sizes.events - 1)):
            await LEVELSYNC.publish(servers, earlier)
        await LEVELSYNC.publish(servers, records)
        drained = await drain(servers, settings, LEVELSYNC, records)
    return [Row("levelsync: peak memory", (drained.memory,), "MB", at_most=_MOST, note=f"{sizes.backlog:,} records")]
