"""A way to PostgreSQL that falls silent: a network that drops every packet and says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class Way:
    """Forwards bytes in both directions for as long as `open` is set."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = asyncio.Event()
        self.open.set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a client's connection and join it to one of the server's."""
        theirs, ours = await asyncio.open_connection(self._target.hostname, self._target.port)
        pairs = ((reader, ours), (theirs, writer))
        self._tasks |= {asyncio.create_task(self._forward(*pair)) for pair in pairs}

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self.open.wait()
                writer.write(data)
            await self.open.wait()
        finally:
            writer.close()

    async def close(self) -> None:
        """End all that is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def way_to(url: str) -> AsyncIterator[tuple[Way, str]]:
    """A `Way` to the server of `url`, and the URL that leads over it."""
    way = Way(url)
    server = await asyncio.start_server(way.answer, "127.0.0.1", 0)
    target = urlsplit(url)
    port = server.sockets[0].getsockname()[1]
    user, _, _ = target.netloc.rpartition("@")
    async with server:
        yield way, urlunsplit(target._replace(netloc=f"{user}@127.0.0.1:{port}"))
        await way.close()
