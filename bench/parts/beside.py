"""Side by side: the drain while another process scans a million pairs without a pause, and the drain alone."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.load import Records, make_records
from bench.meter import drain
from bench.pairs import fill
from bench.servers import Servers, running_servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC
from bench.systems.system import process
from bench.table import Row, ratio
from service.settings import Settings
from tests.support.process import serve_environment

_PAIRS = 1_000_000
_TARGET = 0.5


async def run(sizes: Sizes) -> list[Row]:
    """Measure alone and beside in turn. A whole run would wait for the drain, so only the scan's statement runs."""
    records = make_records(sizes.events)
    alone: list[float] = []
    beside: list[float] = []
    async with running_servers() as servers:
        users = records.users + _PAIRS // 2
        template = await servers.template(users, fill(records.users + 1, users, 1000))
        await LEVELSYNC.publish(servers, records)
        for _ in range(sizes.rounds):
            for rates, scanning in ((alone, False), (beside, True)):
                settings = await servers.new(template)
                rates.append(await _rate(servers, settings, records, scanning=scanning))
                await servers.drop(settings)
    return [
        Row("drain alone", tuple(alone), "events/s"),
        Row("drain beside a scan", tuple(beside), "events/s", note=f"scan of {_PAIRS:,} pairs, without a pause"),
        ratio("beside : alone", beside, alone, at_least=_TARGET),
    ]


async def _rate(servers: Servers, settings: Settings, records: Records, *, scanning: bool) -> float:
    if not scanning:
        return (await drain(servers, settings, LEVELSYNC, records)).rate
    async with _scans(servers, settings):
        return (await drain(servers, settings, LEVELSYNC, records)).rate


@asynccontextmanager
async def _scans(servers: Servers, settings: Settings) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "bench.systems.scanning_process"]
    async with process(command, servers.folder / settings.kafka_group_id, serve_environment(settings)):
        yield
