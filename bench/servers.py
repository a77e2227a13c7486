"""The servers of the benchmark: Apache Kafka as the tests have it, PostgreSQL with its defaults (fsync on)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg

from service.database.migrate import migrate
from service.embedded import EmbeddedPostgres
from service.settings import Settings
from tests.infrastructure import apache_kafka
from tests.infrastructure.servers import Postgres
from tests.infrastructure.topics import fresh_topics
from tests.laws.load import PARTITIONS

_USERS = """
    INSERT INTO public.users (id, name, email)
    SELECT id, 'User ' || id, 'user' || id || '@example.org' FROM generate_series(1, $1::int) AS id
"""


@asynccontextmanager
async def servers(folder: Path, users: int) -> AsyncIterator[tuple[Settings, EmbeddedPostgres]]:
    """Both servers with empty topics and a migrated database of `users` users; gone afterwards."""
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(apache_kafka.ApacheKafka(folder / "kafka"))
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
        await fresh_topics(kafka.bootstrap_servers, PARTITIONS, remove_groups=False)
        settings = Settings(
            _env_file=None,
            database_url=await Postgres(postgres.url).create_database(),
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            kafka_group_id="levelsync-bench",
            http_port=0,
            log_format="json",
        )
        await asyncio.to_thread(migrate, settings)
        await _add_users(settings, users)
        yield settings, postgres


async def _add_users(settings: Settings, users: int) -> None:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    await connection.execute(_USERS, users)
    await connection.execute("VACUUM ANALYZE")  # as autovacuum leaves a database that has lived for a while
    await connection.close()


def new_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the servers' data, outside the repository."""
    return tempfile.TemporaryDirectory(prefix="levelsync-bench-", ignore_cleanup_errors=True)
