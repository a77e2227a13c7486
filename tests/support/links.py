"""Links to PostgreSQL and Kafka that are slow, silent, or stop before a round trip or an answer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr


class Way:
    """Forwards bytes in both directions while `open` is set."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = asyncio.Event()
        self.open.set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client's connection to a new one of the server."""
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def way_to(url: str) -> AsyncIterator[tuple[Way, str]]:
    """Yield a `Way` to the server of `url`, and the URL of the way."""
    way = Way(url)
    server = await asyncio.start_server(way.answer, "127.0.0.1", 0)
    target = urlsplit(url)
    port = server.sockets[0].getsockname()[1]
    user, _, _ = target.netloc.rpartition("@")
    async with server:
        yield way, urlunsplit(target._replace(netloc=f"{user}@127.0.0.1:{port}"))
        await way.close()


class SlowLink:
    """Forwards loopback connections to a server, and delays what a client sends by `seconds`."""

    def __init__(self, database_url: str, seconds: float = 0) -> None:
        self._parts = urlsplit(database_url)
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_at = 0
        self.trips = 0
        """How often a client has sent something, which is about how often it has waited for an answer."""
        self.stopped = asyncio.Event()
        self._go_on = asyncio.Event()

    async def __aenter__(self) -> SlowLink:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def secret_url(self) -> SecretStr:
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.netloc.rpartition("@")[0]
        return SecretStr(urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}")))

    def stop_before(self, trip: int) -> None:
        """Hold back what a client sends in this round trip, counted from now, until `go_on`."""
        self.trips, self._stop_at = 0, trip
        self.stopped.clear()
        self._go_on.clear()

    def go_on(self) -> None:
        self._go_on.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        for source, sink, is_client in ((reader, back, True), (there, writer, False)):
            task = asyncio.create_task(self._forward(source, sink, is_client=is_client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_client: bool) -> None:
        try:
            while data := await source.read(1 << 16):
                if is_client:
                    await self._hold_back()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # the other side has closed
        finally:
            sink.close()
            with suppress(OSError):
                await sink.wait_closed()

    async def _hold_back(self) -> None:
        self.trips += 1
        if self.trips == self._stop_at:
            self.stopped.set()
            await self._go_on.wait()
        if self._seconds:
            await asyncio.sleep(self._seconds)


_SIZE = struct.Struct(">i")


class SilentWay:
    """Forwards every request, and the first `answers` answers. It announces brokers at its own address."""

    def __init__(self, target: str, answers: int) -> None:
        self._host, _, port = target.rpartition(":")
        self._port, self._answers = int(port), answers
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count()
        self.address = ""
        self.silent = asyncio.Event()
        """Set once an answer was held back."""
        self.open: set[int] = set()
        """Numbers of the connections that the client has not closed."""
        self.closed = asyncio.Event()
        """Set while no connection is open."""
        self.closed.set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client's connection to a new one of the broker."""
        number = next(self._numbers)
        self.open.add(number)
        self.closed.clear()
        theirs, ours = await asyncio.open_connection(self._host, self._port)
        self._tasks.add(asyncio.create_task(self._requests(number, reader, ours, writer)))
        self._tasks.add(asyncio.create_task(self._responses(theirs, writer)))

    async def _requests(
        self, number: int, reader: asyncio.StreamReader, ours: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(65536):
                ours.write(data)
        except ConnectionError:
            pass  # the client has reset the connection, which closes it too
        finally:
            self.open.discard(number)
            if not self.open:
                self.closed.set()
            ours.close()
            writer.close()

    async def _responses(self, theirs: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        real, announced = self._port, int(self.address.rpartition(":")[2])
        try:
            while True:
                (size,) = _SIZE.unpack(await theirs.readexactly(4))
                frame = await theirs.readexactly(size)
                if self._answers <= 0:
                    self.silent.set()
                    continue
                self._answers -= 1
                writer.write(_SIZE.pack(size) + frame.replace(_SIZE.pack(real), _SIZE.pack(announced)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # one of the two sides has gone

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def silent_way(target: str, answers: int) -> AsyncIterator[SilentWay]:
    """Yield a `SilentWay` to the broker at `target`."""
    way = SilentWay(target, answers)
    server = await asyncio.start_server(way.answer, "127.0.0.1", 0)
    way.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield way
        await way.close()
