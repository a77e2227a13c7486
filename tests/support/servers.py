"""Kafka and PostgreSQL as tests see them, and the template of each test's database.

PostgreSQL need not survive a crash of the machine, so it does not wait for the disk. It must survive its own crash:
`synchronous_commit` stays on, because without it a `kill -9` loses what was just committed.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from service.cli.servers import sample_users
from service.local.process import Server
from service.settings import Settings
from service.store.engine import make_engine
from service.store.migrate import migrate
from tests.support.topics import fresh_topics

POSTGRES_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}


def system_programs(root: Path = Path("/usr/lib/postgresql")) -> Path | None:
    """Return the folder of the newest PostgreSQL server of the system, or None."""
    packaged = sorted(root.glob("*/bin/postgres"), key=lambda program: float(program.parts[-3]))
    found = packaged[-1] if packaged else shutil.which("postgres")
    return Path(found).parent if found else None


class Restartable:
    """A server that a test may stop and start again, if it is ours, with the same address and data."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._runs = True

    @property
    def can_restart(self) -> bool:
        """Whether `stop` and `start` can be used. A test that needs them skips itself otherwise."""
        return self._server is not None

    async def stop(self) -> None:
        """Stop it. Clients see an outage."""
        if self._server is not None and self._runs:
            self._runs = False
            await asyncio.to_thread(self._server.stop)

    async def kill(self) -> None:
        """Send SIGKILL to all its processes, without a goodbye to clients or a flush to disk."""
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
        """Start it if it does not run, and wait until it can be used."""
        if self._server is not None and not self._runs:
            await asyncio.to_thread(self._server.start)
            self._runs = True


class Kafka(Restartable):
    """The broker of the session. `real` is False for the embedded one, which loses its records in a restart."""

    def __init__(self, bootstrap_servers: str, *, real: bool, server: Server | None = None) -> None:
        super().__init__(server)
        self.bootstrap_servers = bootstrap_servers
        self.real = real

    async def fresh_topics(self, partitions: int = 4, *, keep_empty: bool = False) -> list[str]:
        """Delete and create every topic of the contract, or those with records, and remove unused groups."""
        await self.start()  # the test before may have left it stopped
        return await fresh_topics(self.bootstrap_servers, partitions, remove_groups=self.real, keep_empty=keep_empty)


class Postgres(Restartable):
    """The PostgreSQL server of the session. `url` is a superuser's, of a database that no test changes."""

    def __init__(self, url: str, *, server: Server | None = None) -> None:
        super().__init__(server)
        self.url = url

    async def create_database(self, template: str = "template1") -> str:
        """Create a database, a copy of `template`; returns its URL."""
        await self.start()  # the test before may have left it stopped
        name = f"levelsync_test_{uuid.uuid4().hex}"
        # A copy of the files takes half the CPU of the default, which writes each page to the WAL.
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url_of(name)

    async def drop_database(self, url: str) -> None:
        """Drop a database, and end its connections."""
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
        """Return the URL of another database of this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))


def database_name(url: str) -> str:
    """Return the name of a URL's database."""
    return urlsplit(url).path.lstrip("/")


def settings_for(url: str, kafka: Kafka, **more: Any) -> Settings:
    """Return settings of a service on one database and the session's broker, with a new consumer group."""
    given: dict[str, Any] = {
        "database_url": url,
        "kafka_bootstrap_servers": kafka.bootstrap_servers,
        "kafka_group_id": f"levelsync-test-{uuid.uuid4().hex}",
        "http_port": 0,
    }
    return Settings(_env_file=None, **(given | more))


async def make_template(postgres: Postgres) -> str:
    """Create a migrated database with 200 sample users; returns its name. No connection stays open."""
    settings = Settings(_env_file=None, database_url=await postgres.create_database())
    await asyncio.to_thread(migrate, settings)
    engine = make_engine(settings)
    async with engine.begin() as connection:
        await sample_users(connection)
    await engine.dispose()
    return database_name(settings.database_url.get_secret_value())
