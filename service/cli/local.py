"""PostgreSQL, a broker and a migrated database of our own on this machine, for `up` and `demo`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from service.cli import output
from service.cli.exits import Unreachable
from service.database.engine import make_engine
from service.database.migrate import migrate
from service.database.sample import USERS, sample_users
from service.embedded import EmbeddedBroker, EmbeddedError, EmbeddedPostgres
from service.settings import Settings

_PLAIN_BROKER = {"kafka_security_protocol": "PLAINTEXT", "kafka_topic_replication": None, "kafka_create_topics": True}


@asynccontextmanager
async def local_stack(data: Path, settings: Settings) -> AsyncIterator[Settings]:
    """Start an embedded PostgreSQL with its data in `data`, and an embedded broker; migrate; make sample users.

    Yields `settings`, changed to reach them. Both are gone when the context ends, whatever ends it.

    Raises:
        Unreachable: one of them cannot run here.
    """
    try:
        async with EmbeddedPostgres(data) as postgres, EmbeddedBroker() as broker:
            addresses = {
                "database_url": SecretStr(postgres.url),
                "kafka_bootstrap_servers": broker.bootstrap_servers,
            }
            reached = settings.model_copy(update=addresses | _PLAIN_BROKER)
            await asyncio.to_thread(migrate, reached)
            await _make_sample_users(reached)
            yield reached
    except EmbeddedError as error:
        raise Unreachable(str(error)) from error


async def _make_sample_users(settings: Settings) -> None:
    """Make the sample users where there is none (interface, "Getting it")."""
    engine = make_engine(settings, pool_size=1)
    try:
        async with engine.begin() as conn:
            if await sample_users(conn):
                output.remark(f"Made {USERS} sample users, ids 1 to {USERS}")
    finally:
        await engine.dispose()
