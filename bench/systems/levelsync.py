"""levelsync: one process of `levelsync serve --roles apply`."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.load import LEVELS_TOPIC, Records, encode
from bench.servers import Servers
from bench.systems.system import System, process
from service.settings import Settings
from tests.support.process import LevelsyncProcess, serve_environment
from tests.support.topics import fill


async def publish(servers: Servers, records: Records) -> None:
    """Publish the records as publishers write them."""
    await fill(servers.bootstrap_servers, records.encoded(LEVELS_TOPIC, encode))


@asynccontextmanager
async def _run(servers: Servers, settings: Settings, _records: Records) -> AsyncIterator[int]:
    command = [sys.executable, "-m", "service", "serve", "--roles", "apply"]
    folder = servers.folder / f"levelsync-{uuid.uuid4().hex[:8]}"
    async with process(command, folder, serve_environment(settings)) as pid:
        yield pid


@asynccontextmanager
async def running(servers: Servers, settings: Settings, roles: str = "apply") -> AsyncIterator[LevelsyncProcess]:
    """Run levelsync, and yield the process when /readyz reports ready, for parts that measure no start."""
    folder = servers.folder / f"levelsync-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    process_ = LevelsyncProcess(settings, folder, ("serve", "--roles", roles))
    try:
        await process_.start()
        yield process_
    finally:
        process_.stop()


LEVELSYNC = System("levelsync", publish, _run)
