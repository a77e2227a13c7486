"""Bringing a database to this release (R9, R10): what `alembic upgrade head` does, from a checkout or a wheel.

`serve` asks `is_at_head` again and again, so Alembic itself is imported by `migrate` only.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from service.database.engine import engine_to
from service.database.faults import read_fault
from service.database.tables import SCHEMA
from service.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "topic_ids"
"""The revision that this release needs. A test holds it equal to the newest file in `alembic/versions`."""

VERSION_TABLE = "alembic_version"
LOCK_TIMEOUT = "5s"
"""How long a migration waits for a lock on a table: everybody who comes after it waits behind it meanwhile."""

_LOCK_NOT_AVAILABLE = "55P03"
_INSUFFICIENT_PRIVILEGE = "42501"
_SERVER_SETTINGS = {
    "timezone": "UTC",
    "application_name": "levelsync migrate",
    "statement_timeout": "0",  # a large table may take its time; waiting for a lock may not
    "idle_in_transaction_session_timeout": "0",
}
# As in an alembic.ini, except that there WARNING is cut to WARNI.
_ALEMBICS_OWN_FORMAT = logging.Formatter("%(levelname)-5s [%(name)s] %(message)s")
_ALEMBIC_IS_GLOBAL = threading.Lock()  # it keeps the migration that runs in variables of its modules

log = logging.getLogger("levelsync.migrate")


class MigrationStopped(Exception):  # noqa: N818 - it stops on purpose, before it changes anything
    """A migration found what it must not touch, or a lock that it could not have. Its text says what to do."""


def migrate(settings: Settings, revision: str = "head") -> None:
    """Upgrade to `revision`. A second run finds nothing to do; a second process waits for the first.

    It runs an event loop of its own: from a running one, call it through `asyncio.to_thread`.

    Raises:
        MigrationStopped: with a sentence for the operator; the revision that stopped changed nothing.
        OSError, sqlalchemy.exc.DBAPIError: PostgreSQL cannot be reached, or refused a statement.
    """
    from alembic import command  # noqa: PLC0415 - slow, and needed here only
    from alembic.util import CommandError  # noqa: PLC0415

    try:
        with _ALEMBIC_IS_GLOBAL:
            command.upgrade(alembic_config(settings), revision)
    except CommandError as error:
        raise MigrationStopped(str(error)) from error


def alembic_config(settings: Settings) -> Config:
    """Make what `alembic.ini` is to the command `alembic`, with the settings that `env.py` is to take."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["settings"] = settings
    return config


def scripts_folder() -> Path:
    """Where the migrations are: inside the package when installed from a wheel, else beside it in the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "alembic"


async def is_at_head(engine: AsyncEngine) -> bool:
    """Whether the database stands exactly at this release's revision; any other counts as not migrated."""
    return await current_revision(engine) == HEAD


async def current_revision(engine: AsyncEngine) -> str | None:
    """Read the revision at which the database stands, None before the first migration."""
    async with engine.connect() as conn:
        return await read_revision(conn)


async def read_revision(conn: AsyncConnection) -> str | None:
    """Read the revision on a connection that is there already."""
    if await conn.scalar(text(f"SELECT to_regclass('{SCHEMA}.{VERSION_TABLE}')")) is None:
        return None
    found: str | None = await conn.scalar(text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"))
    return found


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Open the one connection of a migration.

    Raises:
        alembic.util.CommandError: a lock was not to be had in time, or a right is missing.
        SettingsError: the database's URL cannot be used, or leads to a connection that cannot be used.
    """
    from alembic.util import CommandError  # noqa: PLC0415 - see `migrate`

    engine = engine_to(settings, _SERVER_SETTINGS, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise CommandError(sentence) from error
    finally:
        await engine.dispose()


def _sentence(error: DBAPIError) -> str | None:
    """What an operator can do about an error; None for one that is not about his installation."""
    fault = read_fault(error)
    if fault.sqlstate == _LOCK_NOT_AVAILABLE:
        return (
            f"The application held a lock for longer than {LOCK_TIMEOUT}, so this revision changed nothing. "
            "Run it again at a quieter time; pg_stat_activity shows who holds the lock."
        )
    if fault.sqlstate == _INSUFFICIENT_PRIVILEGE:
        return (
            f"The database user may not do what this revision needs ({fault.message}), so it changed nothing. "
            "Migrate as the owner of the application's tables, with the right to create a schema."
        )
    return None


def wait_for_turn(connection: Connection) -> None:
    """Take the lock around the whole migration; it ends with the connection. Then bound every other lock's wait."""
    key = "hashtextextended('levelsync migrate', 0)"
    if not connection.scalar(text(f"SELECT pg_try_advisory_lock({key})")):
        log.info("Another migration of this database is running; waiting for its end")
        connection.execute(text("SET lock_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_lock({key})"))
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()


def make_schema(connection: Connection) -> None:
    """Make the schema of levelsync, in the transaction of the first migration: where that stops, nothing is left.

    Asked first, because CREATE SCHEMA IF NOT EXISTS wants the right to create one even where it exists.
    """
    if connection.scalar(text(f"SELECT to_regnamespace('{SCHEMA}')")) is None:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


@contextmanager
def alembic_log_format() -> Iterator[None]:
    """Write Alembic's lines, and ours among them, in Alembic's own format on stderr, whatever LOG_FORMAT (R9)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ALEMBICS_OWN_FORMAT)
    loggers = [logging.getLogger("alembic"), log]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
