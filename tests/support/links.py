"""Links to PostgreSQL and Kafka that are slow, silent, or stop before a round trip or an answer."""

from __future__ import annotations

import asyncio
import struct
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from itertools import count
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from service.local.process import HOST

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""Where one direction reads, and where it writes."""
Work = Coroutine[Any, Any, None]


class _Link(ABC):
    """Listens on loopback, and joins each connection of a client to a new one of the server."""

    def __init__(self, host: str | None, port: int | None) -> None:
        self._host, self._port = host, port
        self._handlers: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, HOST, 0)
        self.address = f"{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        """End all connections, also unfinished ones."""
        self._server.close()
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client's connection to a new one of the server, until both directions have ended."""
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        try:
            theirs, ours = await asyncio.open_connection(self._host, self._port)
            try:
                await asyncio.gather(*self._directions((reader, ours), (theirs, writer)), return_exceptions=True)
            finally:
                ours.transport.abort()
        finally:
            writer.transport.abort()
            self._handlers.discard(handler)

    @abstractmethod
    def _directions(self, there: Ends, back: Ends) -> tuple[Work, Work]:
        """Return the work of both directions: from the client to the server, and back."""


class Way(_Link):
    """Forwards bytes to PostgreSQL and back while `open` is set, and delays what a client sends by `seconds`."""

    def __init__(self, database_url: str, seconds: float = 0) -> None:
        self._parts = urlsplit(database_url)
        super().__init__(self._parts.hostname, self._parts.port)
        self.seconds = seconds
        self.open = asyncio.Event()
        self.open.set()
        self.trips = 0
        """How often a client has sent something, which is about how often it has waited for an answer."""
        self.stopped = asyncio.Event()
        self._stop_at = 0
        self._go_on = asyncio.Event()

    @property
    def url(self) -> SecretStr:
        """The URL of the database through this link."""
        user = self._parts.netloc.rpartition("@")[0]
        return SecretStr(self._parts._replace(netloc=f"{user}@{self.address}").geturl())

    def lead_to(self, url: str) -> None:
        """Join the connections that come from now on to another server."""
        target = urlsplit(url)
        self._host, self._port = target.hostname, target.port

    def stop_before(self, trip: int) -> None:
        """Hold back what a client sends in this round trip, counted from now, until `go_on`."""
        self.trips, self._stop_at = 0, trip
        self.stopped.clear()
        self._go_on.clear()

    def go_on(self) -> None:
        self._go_on.set()

    def _directions(self, there: Ends, back: Ends) -> tuple[Work, Work]:
        return self._forward(*there, is_client=True), self._forward(*back, is_client=False)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_client: bool) -> None:
        try:
            while data := await reader.read(65536):
                await self.open.wait()
                if is_client:
                    await self._hold_back()
                writer.write(data)
            await self.open.wait()
        finally:
            writer.close()

    async def _hold_back(self) -> None:
        self.trips += 1
        if self.trips == self._stop_at:
            self.stopped.set()
            await self._go_on.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)


_SIZE = struct.Struct(">i")


class SilentWay(_Link):
    """Forwards every request, and the first `answers` answers. It announces brokers at its own address."""

    def __init__(self, target: str, answers: int) -> None:
        host, _, port = target.rpartition(":")
        super().__init__(host, int(port))
        self._answers = answers
        self._numbers = count()
        self.silent = asyncio.Event()
        """Set once an answer was held back."""
        self.open: set[int] = set()
        """Numbers of the connections that the client has not closed."""
        self.closed = asyncio.Event()
        """Set while no connection is open."""
        self.closed.set()

    def _directions(self, there: Ends, back: Ends) -> tuple[Work, Work]:
        number = next(self._numbers)
        self.open.add(number)
        self.closed.clear()
        reader, ours = there
        theirs, writer = back
        return self._requests(number, reader, ours, writer), self._responses(theirs, writer)

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
