"""The database that tests copy."""

from __future__ import annotations

import asyncio

from service.database.engine import make_engine
from service.database.migrate import migrate
from service.database.sample import sample_users
from service.settings import Settings
from tests.infrastructure.servers import Postgres, database_name


async def make_template(postgres: Postgres) -> str:
    """Make a migrated database with 200 sample users; returns its name. Nobody stays connected to it."""
    settings = Settings(_env_file=None, database_url=await postgres.create_database())
    await asyncio.to_thread(migrate, settings)
    engine = make_engine(settings)
    async with engine.begin() as connection:
        await sample_users(connection)
    await engine.dispose()
    return database_name(settings.database_url.get_secret_value())
