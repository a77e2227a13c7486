"""Migrate a database to this release, as `alembic upgrade head` does, from a checkout or a wheel.

Functions import Alembic where they need it, because its import is slow and every command imports this module.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from service.faults import read_fault
from service.settings import Settings
from service.store import functions
from service.store.catalog import table_exists
from service.store.engine import engine_to
from service.store.revisions import LOCK_NOT_AVAILABLE, Stop, changes
from service.store.schema import (
    HEAD,
    INFO_TABLE,
    RELEASE,
    SchemaState,
    read_schema_state,
    release_number,
    scripts_folder,
)
from service.store.tables import SCHEMA

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext, MigrationInfo

FIRST_RELEASE = "0.1.0"
"""The oldest release that may run on a revision whose file does not set `oldest_release`."""

LOCK_TIMEOUT = "5s"
"""How long a migration waits for a lock on a table. During that time all later sessions wait behind it."""

_INSUFFICIENT_PRIVILEGE = "42501"
_SERVER_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
    "row_security": "off",
    "application_name": "levelsync migrate",
    "statement_timeout": "0",  # a large table may need hours; `lock_timeout` limits the wait for locks
    "idle_in_transaction_session_timeout": "0",
}
_WRITE_INFO = text("""
    INSERT INTO levelsync.schema_info (id, revision, oldest_release) VALUES (1, :revision, :oldest)
        ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, oldest_release = excluded.oldest_release
""")
# The format of Alembic's own alembic.ini, except that there WARNING is cut to WARNI.
_ALEMBIC_FORMAT = logging.Formatter("%(levelname)-5s [%(name)s] %(message)s")
_ALEMBIC_LOCK = threading.Lock()  # Alembic stores the running migration in global variables

log = logging.getLogger("levelsync.migrate")


class MigrationStopped(Exception):  # noqa: N818 - a deliberate stop, before anything is changed
    """A migration stopped at something that it must not change, or did not get a lock. The text says what to do."""


class UnknownRevision(MigrationStopped):
    """The requested revision does not exist."""


def migrate(settings: Settings, revision: str = "head") -> None:
    """Upgrade to `revision`. A second run changes nothing. A second process waits for the first.

    It runs its own event loop, so call it through `asyncio.to_thread` where a loop runs already.

    Raises:
        UnknownRevision: The revision does not exist.
        MigrationStopped: The migration stopped, with a sentence for the operator. The stopped revision changed nothing.
        OSError, sqlalchemy.exc.DBAPIError: PostgreSQL cannot be reached, or refused a statement.
    """
    from alembic import command  # noqa: PLC0415 - slow, see the module's docstring
    from alembic.util import CommandError  # noqa: PLC0415

    config = alembic_config(settings)
    _check_exists(config, revision)
    try:
        with _ALEMBIC_LOCK:
            command.upgrade(config, revision)
    except CommandError as error:
        raise MigrationStopped(str(error)) from error


def _check_exists(config: Config, revision: str) -> None:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see `migrate`
    from alembic.util import CommandError  # noqa: PLC0415

    if revision.startswith("+"):  # Alembic counts relative revisions from where the database is
        return
    scripts = ScriptDirectory.from_config(config)
    try:
        scripts.get_revisions(revision)
    except CommandError as error:
        known = ", ".join(reversed([script.revision for script in scripts.walk_revisions()]))
        raise UnknownRevision(f"there is no revision {revision!r}; the revisions are {known}") from error


def alembic_config(settings: Settings) -> Config:
    """Return the configuration that `alembic.ini` contains for the command `alembic`, with settings for `env.py`."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["settings"] = settings
    return config


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Open the connection of a migration.

    Raises:
        alembic.util.CommandError: The migration did not get a lock in time, or lacks a right.
        SettingsError: The database's URL or its connection cannot be used.
    """
    from alembic.util import CommandError  # noqa: PLC0415 - see `migrate`

    engine = engine_to(settings, _SERVER_SETTINGS, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        raise CommandError(sentence) from error
    finally:
        await engine.dispose()


def sentence_of(error: Stop | DBAPIError) -> str | None:
    """Return what an operator can do about an error, or None for an error without a known remedy."""
    if isinstance(error, Stop):
        return str(error)
    fault = read_fault(error)
    if fault.sqlstate == LOCK_NOT_AVAILABLE:
        return (
            f"Another session held a lock that this revision needs for longer than {LOCK_TIMEOUT} "
            f"({_statement(error)}). Run levelsync migrate again at a quieter time. pg_stat_activity shows who holds "
            "the lock."
        )
    if fault.sqlstate == _INSUFFICIENT_PRIVILEGE:
        return (
            f"The database user may not do what this revision needs: {fault.message} ({_statement(error)}). Run "
            "levelsync migrate as the owner of the application's tables, with the right to create a schema."
        )
    return None


class Track:
    """Counts the revisions that a migration applies, and writes `levelsync.schema_info` with each of them."""

    def __init__(self) -> None:
        self.steps = 0

    def applied(self, *, ctx: MigrationContext, step: MigrationInfo, heads: set[str], **_: object) -> None:
        """Write the row in the revision's transaction. Alembic calls this as `on_version_apply`."""
        from alembic.script import Script  # noqa: PLC0415 - see `migrate`

        self.steps += 1
        changes.commit(step.up_revision_id or "")
        connection = ctx.connection
        if connection is None or not heads or not table_exists(connection, f"{SCHEMA}.{INFO_TABLE}"):
            return
        (revision,) = heads
        scripts = [s for s in step.revision_map.iterate_revisions(revision, "base") if isinstance(s, Script)]
        releases = [getattr(script.module, "oldest_release", FIRST_RELEASE) for script in scripts]
        connection.execute(_WRITE_INFO, {"revision": revision, "oldest": max(releases, key=release_number)})


def leave_later_schema(state: SchemaState) -> bool:
    """Return whether a later release created the schema and allows this release, which then must not change it.

    Raises:
        alembic.util.CommandError: A later release created the schema and does not allow this release.
    """
    from alembic.util import CommandError  # noqa: PLC0415 - see `migrate`

    if not state.is_later:
        return False
    if state.refusal:
        raise CommandError(state.refusal)
    log.info(
        "The schema is at revision %s, which a later release created. Release %s may run on it: nothing to do",
        state.revision,
        RELEASE,
    )
    return True


def _statement(error: DBAPIError) -> str:
    """Return the beginning of the failed statement, which names the table."""
    return " ".join((error.statement or "").split())[:120]


def wait_for_turn(connection: Connection) -> None:
    """Acquire the lock of the whole migration, which ends with the connection. Then limit waits for other locks."""
    key = "hashtextextended('levelsync migrate', 0)"
    if not connection.scalar(text(f"SELECT pg_try_advisory_lock({key})")):
        log.info("Another migration of this database is running; waiting until it ends")
        connection.execute(text("SET lock_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_lock({key})"))
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()


def make_schema(connection: Connection) -> None:
    """Create the schema of levelsync in the transaction of the first revision, so that a rollback removes it too.

    CREATE SCHEMA IF NOT EXISTS requires the right to create a schema even if it exists, so this checks first.
    """
    if connection.scalar(text(f"SELECT to_regnamespace('{SCHEMA}')")) is None:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


def renew_functions(connection: Connection) -> bool:
    """Create the stored functions again if the application's tables have changed. Return whether they had.

    Do nothing on a schema that is not at this release's revision.
    """
    if read_schema_state(connection).revision != HEAD:
        return False
    differences = functions.changes_since_v1(connection)
    if differences:
        functions.create_v1(connection)
        log.info("Created the stored functions again: %s", "; ".join(differences))
    connection.commit()
    return bool(differences)


@contextmanager
def alembic_log_format() -> Iterator[None]:
    """Log Alembic's lines and those of the migrations in Alembic's format on stderr, whatever LOG_FORMAT is."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ALEMBIC_FORMAT)
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
