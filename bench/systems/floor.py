"""The floor: the same writes by levelsync's own code, from memory on one connection, without Kafka and decoding."""

from __future__ import annotations

import pickle
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.load import Records
from bench.servers import Servers
from bench.systems.system import System, process
from service.settings import Settings
from tests.support.process import serve_environment


async def _publish(_servers: Servers, _records: Records) -> None:
    """Do nothing, because this system reads its records from memory."""


@asynccontextmanager
async def _run(servers: Servers, settings: Settings, records: Records) -> AsyncIterator[int]:
    folder = servers.folder / f"floor-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "records").write_bytes(pickle.dumps(list(records.partitions.values())))
    command = [sys.executable, "-m", "bench.systems.floor_process", str(folder / "records")]
    async with process(command, folder, serve_environment(settings)) as pid:
        yield pid


FLOOR = System("floor", _publish, _run)
