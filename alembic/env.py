"""Alembic's environment: it connects with the service's settings and asyncpg, and runs one migration at a time.

Each migration is a separate transaction, so a lock on a table of the live application lasts only for one migration.
When a migration stops, the earlier ones stay applied, and the next run continues from there. The version table is in
the schema `levelsync`, so the application's own Alembic history is never touched.
"""

import asyncio

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from service.settings import Settings, SettingsError, load_settings
from service.store import migrate
from service.store.revisions import Stop, changes
from service.store.schema import VERSION_TABLE, read_schema_state
from service.store.tables import SCHEMA, metadata
from service.store.url import database_url


def _settings() -> Settings:
    given = context.config.attributes.get("settings")
    try:
        return given if isinstance(given, Settings) else load_settings()
    except SettingsError as error:
        raise CommandError(str(error)) from error


def _run(connection: Connection) -> None:
    track = migrate.Track()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
        transaction_per_migration=True,
        on_version_apply=track.applied,
        include_schemas=True,
        include_name=lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
    )
    # `alembic current` only reads. It takes no lock and creates no schema.
    if context.get_context().opts.get("dont_mutate"):
        context.run_migrations()
        return
    migrate.wait_for_turn(connection)
    state = read_schema_state(connection)
    if migrate.leave_later_schema(state):
        return
    changes.begin()
    try:
        migrate.make_schema(connection)
        context.run_migrations()
        renewed = migrate.renew_functions(connection)
    except (Stop, DBAPIError) as error:
        sentence = migrate.sentence_of(error)
        if sentence is None:
            raise
        raise CommandError(f"{sentence} {changes.before}") from error
    if not track.steps and not renewed:
        migrate.log.info("The schema is at revision %s already: nothing to do", state.revision)


async def _migrate() -> None:
    settings = _settings()
    try:
        async with migrate.connect(settings) as connection:
            await connection.run_sync(_run)
    except (OSError, SettingsError) as error:
        if "settings" in context.config.attributes:  # `levelsync migrate` prints its own message and exit code
            raise
        if isinstance(error, SettingsError):
            raise CommandError(str(error)) from error
        address = database_url(settings).address
        raise CommandError(f"PostgreSQL cannot be reached at {address}: {error}") from error


if context.is_offline_mode():
    raise CommandError("These migrations read the database before they change it, so --sql cannot work here.")
with migrate.alembic_log_format():
    asyncio.run(_migrate())
