"""The AsyncEngines of a process, and what each of their connections depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.database.connecting import Connecting
from service.database.faults import READ_ONLY, read_fault
from service.database.url import BadUrl, database_url, tls_arguments
from service.levels import maxima_options
from service.settings import PREFIX, Settings, SettingsError

# Bounds on one statement and on waiting for one lock: a fault that passes is retried (law 4), so a short bound only
# means an earlier retry. The connection's time zone makes aware times land as UTC in the application's naive columns.
SERVER_SETTINGS = {
    "default_transaction_isolation": "read committed",  # laws 2 and 6, whatever the role or the database says
    "timezone": "UTC",
    "row_security": "off",  # a policy that hides rows from us is then an error: hidden rows are not absent (law 4)
    "application_name": "levelsync",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "plan_cache_mode": "force_custom_plan",  # a plan kept from when a table was empty reads all of it as it grows
    "jit": "off",  # our statements take milliseconds: compiling one of a reconcile's ranges took 0.38 s of its 0.40 s
}


def make_engine(
    settings: Settings,
    *,
    pool_size: int = 10,
    bounds: Mapping[str, str] | None = None,
    connect_within: float | None = None,
    **overrides: Any,
) -> AsyncEngine:
    """Create an engine whose connections are READ COMMITTED, speak UTC and bound statements and lock waits.

    `bounds` changes these bounds.

    Raises:
        SettingsError: the database's URL cannot be used, or names a file that cannot.
    """
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 5,
        "pool_timeout": 30,
        "pool_pre_ping": False,
    }
    return engine_to(settings, SERVER_SETTINGS | dict(bounds or {}), connect_within, **(options | overrides))


def pool_sizes(settings: Settings, *, with_api: bool) -> tuple[int, int]:
    """Share DATABASE_POOL_SIZE between the roles and the API, which has an engine of its own."""
    api = settings.database_pool_size * 3 // 10 if with_api else 0
    return settings.database_pool_size - api, api


def engine_to(
    settings: Settings, server_settings: Mapping[str, str], connect_within: float | None = None, **options: Any
) -> AsyncEngine:
    """Create an engine whose connections have `server_settings`; of the URL's own, name and options are kept.

    `connect_within` bounds the URL's `connect_timeout` in seconds; without both it is 10.

    Raises:
        SettingsError: as `make_engine`.
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
    shown = URL.create("postgresql+asyncpg", host=place, database=database)  # for messages: the creator connects
    told = maxima_options(settings)
    engine = create_async_engine(shown, async_creator=connecting.connect, execution_options=told, **options)
    event.listen(engine.sync_engine, "handle_error", _leave_a_server_that_became_read_only)
    return engine


def _leave_a_server_that_became_read_only(context: ExceptionContext) -> None:
    """Drop the connection and those of its pool: new ones reach the new primary behind the same address."""
    if read_fault(context.original_exception).sqlstate == READ_ONLY:
        context.is_disconnect = True
