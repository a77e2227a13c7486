"""Kafka and PostgreSQL as the tests see them, whichever way they came."""

from __future__ import annotations

import asyncio
import uuid
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from service.embedded.process import Server
from tests.infrastructure.topics import fresh_topics


class Restartable:
    """A server that a test may stop and start again, where it is ours: same address, same data."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._runs = True

    @property
    def can_restart(self) -> bool:
        """Whether `stop` and `start` can be used; a test that needs them skips itself otherwise."""
        return self._server is not None

    async def stop(self) -> None:
        """Stop it; clients see an outage."""
        if self._server is not None and self._runs:
            self._runs = False
            await asyncio.to_thread(self._server.stop)

    async def kill(self) -> None:
        """SIGKILL to all its processes: it has no time to say goodbye to clients or to the disk."""
        assert self._server is not None, "not ours to kill"
        assert self._server._process is not None, "it does not run"
        guard = self._server._process._guard
        assert guard is not None, "it does not run"
        processes = psutil.Process(guard.pid).children(recursive=True)
        for process in processes:
            process.kill()
        await asyncio.to_thread(psutil.wait_procs, processes, 10)
        await self.stop()

    async def start(self) -> None:
        """Start it, if it does not run, and wait until it can be used."""
        if self._server is not None and not self._runs:
            await asyncio.to_thread(self._server.start)
            self._runs = True


class Kafka(Restartable):
    """The broker of the session. `real` is False for the embedded one, which keeps nothing over a restart."""

    def __init__(self, bootstrap_servers: str, *, real: bool, server: Server | None = None) -> None:
        super().__init__(server)
        self.bootstrap_servers = bootstrap_servers
        self.real = real

    async def fresh_topics(self, partitions: int = 4) -> list[str]:
        """Make every topic of the contract anew and empty, and remove the groups that nobody uses."""
        await self.start()  # the test before may have left it stopped
        return await fresh_topics(self.bootstrap_servers, partitions, remove_groups=self.real)


class Postgres(Restartable):
    """The PostgreSQL server of the session. `url` is a superuser's, of a database that nobody changes."""

    def __init__(self, url: str, *, server: Server | None = None) -> None:
        super().__init__(server)
        self.url = url

    async def create_database(self, template: str = "template1") -> str:
        """Make a database, a copy of `template`; returns its URL."""
        await self.start()  # the test before may have left it stopped
        name = f"levelsync_test_{uuid.uuid4().hex}"
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    async def drop_database(self, url: str) -> None:
        """Remove a database with whoever is connected to it."""
        await self.start()
        await self.execute(f'DROP DATABASE IF EXISTS "{database_name(url)}" WITH (FORCE)')

    async def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        connection = await asyncpg.connect(self.url, timeout=30)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def url_of(self, database: str) -> str:
        """Give the URL of another database of this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))


def database_name(url: str) -> str:
    """Give the name of a URL's database."""
    return urlsplit(url).path.lstrip("/")
