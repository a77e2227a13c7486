"""Memory: the peak of a process with the role `apply` in a drain, above that of the same process without work."""

from __future__ import annotations

from bench.load import make_records
from bench.meter import drain, peak_memory
from bench.servers import Servers, running_servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC, running
from bench.table import Row

_MOST_ABOVE = 30


async def run(sizes: Sizes) -> list[Row]:
    """Measure the idle processes first, because they need empty topics, then as many drains."""
    records = make_records(sizes.events)
    drained: list[float] = []
    async with running_servers() as servers:
        template = await servers.template(records.users)
        idle = [await _idle(servers, template) for _ in range(sizes.rounds)]
        await LEVELSYNC.publish(servers, records)
        for _ in range(sizes.rounds):
            settings = await servers.new(template)
            drained.append((await drain(servers, settings, LEVELSYNC, records)).memory)
            await servers.drop(settings)
    above = tuple(round(there - here, 1) for there, here in zip(drained, idle, strict=True))
    return [
        Row("idle: peak memory", tuple(idle), "MB"),
        Row("in a drain: peak memory", tuple(drained), "MB"),
        Row("in a drain, above idle", above, "MB", at_most=_MOST_ABOVE),
    ]


async def _idle(servers: Servers, template: str) -> float:
    """Return the peak of a process that is ready. With empty topics it does no more work."""
    settings = await servers.new(template)
    async with running(servers, settings) as process:
        found = peak_memory(process.pid)
    await servers.drop(settings)
    return found
