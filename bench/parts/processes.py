"""Processes: the drain with two processes of levelsync compared with one, on four partitions, with their CPU."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.check import check, model_of
from bench.load import Records, make_records
from bench.meter import Drained, drain
from bench.servers import Servers, running_servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC
from bench.systems.system import Processes, System, ids
from bench.table import Row, ratio
from service.settings import Settings


@asynccontextmanager
async def _two(servers: Servers, settings: Settings, records: Records) -> AsyncIterator[Processes]:
    async with LEVELSYNC.run(servers, settings, records) as first, LEVELSYNC.run(servers, settings, records) as second:
        yield ids(first) + ids(second)


TWO = System("two processes", LEVELSYNC.publish, _two)


async def run(sizes: Sizes) -> list[Row]:
    """Measure one and two processes in turn, and compare the tables with the model."""
    records = make_records(sizes.events)
    model = model_of(records)
    found: dict[str, list[Drained]] = {LEVELSYNC.name: [], TWO.name: []}
    async with running_servers() as servers:
        template = await servers.template(records.users)
        await LEVELSYNC.publish(servers, records)
        for _ in range(sizes.rounds):
            for system in (LEVELSYNC, TWO):
                settings = await servers.new(template)
                found[system.name].append(await drain(servers, settings, system, records))
                comparison = await check(settings, model)
                assert comparison.right, f"{system.name}: {comparison}"  # noqa: S101 - a wrong drain does not count
                await servers.drop(settings)
                print(system.name, found[system.name][-1], file=sys.stderr, flush=True)
    one, two = found.values()
    rates = [[drained.rate for drained in ones] for ones in (one, two)]
    return [
        Row("one process", tuple(rates[0]), "events/s"),
        Row("two processes", tuple(rates[1]), "events/s", note="includes the joining of the second process"),
        ratio("two : one", rates[1], rates[0]),
        *_cpu("one process", one),
        *_cpu("two processes", two),
    ]


def _cpu(name: str, ones: list[Drained]) -> list[Row]:
    return [
        Row(f"{name}: CPU of levelsync", tuple(one.worker_cpu for one in ones), "s per 100,000"),
        Row(f"{name}: CPU of PostgreSQL", tuple(one.postgres_cpu for one in ones), "s per 100,000"),
    ]
