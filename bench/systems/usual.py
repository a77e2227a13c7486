"""The usual handler: FastStream as in its documentation, one typed message at a time, each in a transaction."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.load import Records, encode
from bench.servers import Servers
from bench.systems.system import System, process
from service.settings import Settings
from tests.support.process import serve_environment
from tests.support.topics import fill

_TOPIC = "bench.usual"


async def _publish(servers: Servers, records: Records) -> None:
    """Publish the share of this system to a separate topic."""
    await servers.make_topics(_TOPIC)
    await fill(servers.bootstrap_servers, records.encoded(_TOPIC, encode))


@asynccontextmanager
async def _run(servers: Servers, settings: Settings, _records: Records) -> AsyncIterator[int]:
    command = [sys.executable, "-m", "bench.systems.usual_app", _TOPIC]
    folder = servers.folder / f"usual-{uuid.uuid4().hex[:8]}"
    async with process(command, folder, serve_environment(settings)) as pid:
        yield pid


USUAL = System("usual handler", _publish, _run, share=0.01)
