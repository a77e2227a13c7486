"""The servers of the benchmark: Apache Kafka as in the tests, and PostgreSQL with its defaults (fsync on)."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from service.local import EmbeddedPostgres
from service.settings import Settings
from service.store.migrate import migrate
from tests.support import apache_kafka
from tests.support.load import PARTITIONS
from tests.support.servers import Postgres, database_name
from tests.support.topics import fresh_topics

_USERS = """
    INSERT INTO public.users (id, name, email)
    SELECT id, 'User ' || id, 'user' || id || '@example.org' FROM generate_series(1, {users}) AS id
"""


@dataclass(frozen=True)
class Servers:
    """Both servers, and a folder for files of the systems. Every drain gets a new database and a new group."""

    bootstrap_servers: str
    postgres: Postgres
    postgres_process: psutil.Process
    folder: Path

    async def template(self, users: int, fill: str = "") -> str:
        """Create a migrated database with `users` users, run the statements `fill` there, and return its name."""
        settings = self._settings(await self.postgres.create_database())
        await asyncio.to_thread(migrate, settings)
        await execute(settings, _USERS.format(users=users))
        if fill:
            await execute(settings, fill)
        await execute(settings, "VACUUM ANALYZE")  # as autovacuum does in a database that is not new
        return database_name(settings.database_url.get_secret_value())

    async def new(self, template: str, **changes: object) -> Settings:
        """Copy `template`, and return the settings for the copy and a new consumer group, with `changes`."""
        settings = self._settings(await self.postgres.create_database(template), **changes)
        await self.postgres.execute("CHECKPOINT")  # writes the copy to disk now, so that no drain pays for it
        return settings

    async def drop(self, settings: Settings) -> None:
        """Drop the database of `settings`."""
        await self.postgres.drop_database(settings.database_url.get_secret_value())

    async def make_topics(self, *names: str) -> None:
        """Create more topics, for the systems that need their records in another form."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await client.start()
        try:
            await client.create_topics([NewTopic(name, PARTITIONS, replication_factor=1) for name in names])
        finally:
            await client.close()

    async def empty_topics(self) -> None:
        """Delete the contract's topics and create them again."""
        await fresh_topics(self.bootstrap_servers, PARTITIONS, remove_groups=False)

    def _settings(self, url: str, **changes: object) -> Settings:
        values: dict[str, Any] = {
            "database_url": url,
            "kafka_bootstrap_servers": self.bootstrap_servers,
            "kafka_group_id": f"levelsync-{uuid.uuid4().hex}",
            "http_port": 0,
            "log_format": "json",
            "reconcile_every": 0,
        }
        return Settings(_env_file=None, **(values | changes))


@asynccontextmanager
async def running_servers(postgres_settings: Mapping[str, str] | None = None) -> AsyncIterator[Servers]:
    """Start both servers with empty topics. Remove them and their data at the end."""
    with tempfile.TemporaryDirectory(prefix="levelsync-bench-", ignore_cleanup_errors=True) as name:
        async with AsyncExitStack() as stack:
            folder = Path(name)
            kafka = await stack.enter_async_context(apache_kafka.ApacheKafka(folder / "kafka"))
            server = EmbeddedPostgres(folder / "postgres", server_settings=postgres_settings)
            await stack.enter_async_context(server)
            guard = server._process._guard  # type: ignore[union-attr]  # noqa: SLF001 - the test servers' own handle
            process = psutil.Process(guard.pid).children()[0]  # type: ignore[union-attr]
            servers = Servers(kafka.bootstrap_servers, Postgres(server.url), process, folder)
            await servers.empty_topics()
            yield servers


async def execute(settings: Settings, statements: str) -> None:
    """Run statements on the database of `settings`, on a new connection."""
    connection = await connect(settings)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def connect(settings: Settings) -> Any:
    """Open a plain connection that the measured system does not use."""
    return await asyncpg.connect(settings.database_url.get_secret_value())
