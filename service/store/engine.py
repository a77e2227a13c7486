"""The engine: how connections are opened, checked and dropped.

A pooler may drop startup parameters, and without its time zone a connection would shift the application's naive
columns unnoticed. So every connection is checked, and a parameter that still differs after it was set again is
refused by name. A pooler in transaction mode is refused on the first connection, because settings, session locks,
LISTEN and prepared statements do not last there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import URL, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.faults import READ_ONLY, read_fault
from service.levels import maxima_options
from service.settings import PREFIX, Settings, SettingsError
from service.store.url import BadUrl, database_url, tls_arguments

_REQUIRED_PARAMETERS = frozenset(
    {
        "default_transaction_isolation",
        "idle_in_transaction_session_timeout",
        "lock_timeout",
        "row_security",
        "statement_timeout",
        "timezone",
    }
)
_DIFFERING = """
    SELECT name, current_setting(name) AS found, wanted
      FROM unnest($1::text[], $2::text[]) AS parameters (name, wanted)
     WHERE CASE WHEN name LIKE '%timeout' THEN current_setting(name)::interval <> wanted::interval
                ELSE lower(current_setting(name)) <> lower(wanted) END
     ORDER BY name
"""
_SET = "SELECT set_config(name, wanted, false) FROM unnest($1::text[], $2::text[]) AS parameters (name, wanted)"
_CHECK_SECONDS = 10
_STATEMENT_SECONDS = 90
"""Seconds after which a statement is abandoned. The server's own timeout is shorter and normally ends it first."""
_PID = "SELECT pg_backend_pid()"
_POOLER_PARAMETERS = frozenset({"application_name", "timezone"})
"""The only parameters of ours that PgBouncer accepts at the start of a connection. The others are then set later."""
_LOST_STATEMENT = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
_PROBES, _PROBE_SECONDS = 3, 3
_TRANSACTION_MODE = (
    f"{PREFIX}DATABASE_URL leads to a pooler in transaction mode, but levelsync needs settings and locks that last as "
    "long as a connection: set pool_mode=session in PgBouncer, or connect to PostgreSQL itself"
)


@dataclass
class Connecting:
    """Opens connections with `arguments` of `asyncpg.connect` and settings of the server."""

    arguments: Mapping[str, Any]
    server_settings: Mapping[str, str]
    _mode_is_known: bool = False

    async def connect(self) -> asyncpg.Connection:
        """Open a connection and check that it has the requested settings.

        Raises:
            SettingsError: A setting that the service depends on differs, or this is a pooler in transaction mode.
            OSError, asyncpg.PostgresError: PostgreSQL cannot be reached, or refuses the connection.
        """
        bounded = self.server_settings.get("statement_timeout") != "0"
        connection = await self._open(command_timeout=_STATEMENT_SECONDS if bounded else None)
        try:
            await self._check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _open(self, **options: Any) -> asyncpg.Connection:
        given = dict(self.server_settings)
        try:
            return await asyncpg.connect(**self.arguments, server_settings=given, **options)
        except asyncpg.ProtocolViolationError as error:
            if "startup parameter" not in str(error) or "options" in given:
                raise
        known = {name: value for name, value in given.items() if name in _POOLER_PARAMETERS}
        return await asyncpg.connect(**self.arguments, server_settings=known, **options)

    async def _check(self, connection: asyncpg.Connection) -> None:
        if not self._mode_is_known:
            if await _is_pooled(connection):
                await self._refuse_transaction_mode()
            self._mode_is_known = True
        if not await self._differing(connection):
            return
        settable = {name: value for name, value in self.server_settings.items() if name != "options"}
        await connection.fetch(_SET, list(settable), list(settable.values()), timeout=_CHECK_SECONDS)
        if differing := await self._differing(connection):
            differences = ", ".join(f"{name} is {found} instead of {wanted}" for name, found, wanted in differing)
            raise SettingsError(
                f"{PREFIX}DATABASE_URL: on this connection {differences}. A pooler or the server overrides what "
                "levelsync depends on: connect to PostgreSQL itself, or to a pooler in session mode"
            )

    async def _differing(self, connection: asyncpg.Connection) -> list[tuple[str, str, str]]:
        names = sorted(_REQUIRED_PARAMETERS & self.server_settings.keys())
        wanted = [self.server_settings[name] for name in names]
        rows = await connection.fetch(_DIFFERING, names, wanted, timeout=_CHECK_SECONDS)
        return [tuple(row) for row in rows]

    async def _refuse_transaction_mode(self) -> None:
        """Open two connections and refuse the pooler if they share a server process or change it between transactions.

        Raises:
            SettingsError: This is a pooler in transaction or statement mode.
        """
        one = another = None
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                one, another = await self._open(statement_cache_size=0), await self._open(statement_cache_size=0)
                shared = [await _share_a_server(one, another) for _ in range(_PROBES)]
        except TimeoutError:
            return  # no second server was free while the first connection was idle, so each connection keeps its own
        except (asyncpg.ProtocolViolationError, asyncpg.ConnectionDoesNotExistError) as error:
            if "statement pooling mode" not in str(error):  # this mode refuses transactions and ends the connection
                raise
            raise SettingsError(_TRANSACTION_MODE) from error
        finally:
            for connection in (one, another):
                if connection is not None:
                    connection.terminate()
        if any(shared):
            raise SettingsError(_TRANSACTION_MODE)


async def _is_pooled(connection: asyncpg.Connection) -> bool:
    """Return whether the server process that answers differs from the one that accepted the connection."""
    try:
        return bool(await connection.fetchval(_PID, timeout=_CHECK_SECONDS) != connection.get_server_pid())
    except _LOST_STATEMENT:
        return True


async def _share_a_server(one: asyncpg.Connection, another: asyncpg.Connection) -> bool:
    """Return whether both connections have one server process, or one changes its process between transactions."""
    before = await _server_process(one)
    async with another.transaction():
        other = await another.fetchval(_PID)
        after = await _server_process(one)
    return before == other or before != after


async def _server_process(connection: asyncpg.Connection) -> int:
    async with connection.transaction():
        return int(await connection.fetchval(_PID))


# The timeouts limit one statement and the wait for one lock. Transient faults are retried (law 4), so a short timeout
# only means an earlier retry. With the time zone UTC, aware times are stored as UTC in the application's naive columns.
SERVER_SETTINGS = {
    "default_transaction_isolation": "read committed",  # laws 2 and 6 need it, whatever the role's own setting is
    "timezone": "UTC",
    "row_security": "off",  # a policy that hides rows is then an error, because hidden rows are not absent (law 4)
    "application_name": "levelsync",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "plan_cache_mode": "force_custom_plan",  # a plan cached for an empty table scans the whole table as it grows
    "jit": "off",  # statements take milliseconds; compiling the one of a reconcile range took 0.38 s of its 0.40 s
}


def make_engine(
    settings: Settings,
    *,
    pool_size: int = 10,
    bounds: Mapping[str, str] | None = None,
    connect_within: float | None = None,
    **overrides: Any,
) -> AsyncEngine:
    """Create an engine whose connections use READ COMMITTED and UTC and limit statements and lock waits.

    `bounds` overrides server settings such as these limits.

    Raises:
        SettingsError: The database's URL, or a file that it names, cannot be used.
    """
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 5,
        "pool_timeout": 30,
        "pool_pre_ping": False,
    }
    return engine_to(settings, SERVER_SETTINGS | dict(bounds or {}), connect_within, **(options | overrides))


def pool_sizes(settings: Settings, *, with_api: bool) -> tuple[int, int]:
    """Divide DATABASE_POOL_SIZE between the roles and the API, which has its own engine."""
    api = settings.database_pool_size * 3 // 10 if with_api else 0
    return settings.database_pool_size - api, api


def engine_to(
    settings: Settings, server_settings: Mapping[str, str], connect_within: float | None = None, **options: Any
) -> AsyncEngine:
    """Create an engine whose connections have `server_settings`. The URL's `application_name` and `options` come first.

    The time to connect is the smaller of the URL's `connect_timeout` and `connect_within`, in seconds, and 10 seconds
    without either.

    Raises:
        SettingsError: The database's URL, or a file that it names, cannot be used.
    """
    url = database_url(settings)
    try:
        tls = tls_arguments(url.tls)
    except BadUrl as error:
        raise SettingsError(f"{PREFIX}DATABASE_URL: {error}") from None
    timeouts = [seconds for seconds in (url.connect_timeout, connect_within) if seconds is not None]
    connecting = Connecting(
        arguments=url.connect | tls | {"timeout": min(timeouts, default=10)},
        server_settings={**server_settings, **url.server_settings},
    )
    place, _, database = url.address.rpartition("/")
    shown = URL.create("postgresql+asyncpg", host=place, database=database)  # for messages; async_creator connects
    maxima = maxima_options(settings)
    engine = create_async_engine(shown, async_creator=connecting.connect, execution_options=maxima, **options)
    event.listen(engine.sync_engine, "handle_error", _disconnect_if_read_only)
    return engine


def _disconnect_if_read_only(context: ExceptionContext) -> None:
    """Drop all connections of the pool, so that new ones reach the new primary behind the same address."""
    if read_fault(context.original_exception).sqlstate == READ_ONLY:
        context.is_disconnect = True
