"""The one AsyncEngine of a process, and its connections' settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.settings import PREFIX, Settings, SettingsError

# Bounds on one statement and on waiting for one lock: a fault that passes is retried (law 4), so a short bound only
# means an earlier retry. The connection's time zone makes aware times land as UTC in the application's naive columns.
_SERVER_SETTINGS = {
    "timezone": "UTC",
    "application_name": "levelsync",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "plan_cache_mode": "force_custom_plan",  # a plan kept from when a table was empty reads all of it as it grows
    "jit": "off",  # our statements take milliseconds: compiling one of a reconcile's ranges took 0.38 s of its 0.40 s
}


def database_url(settings: Settings) -> URL:
    """The configured URL with the asyncpg driver, whatever driver suffix it was written with.

    Raises:
        SettingsError: it cannot be taken apart. What is wrong with it is not quoted: it may be a part of the password.
    """
    try:
        return make_url(settings.database_url.get_secret_value()).set(drivername="postgresql+asyncpg")
    except (ValueError, ArgumentError):
        form = "postgresql://user:password@host:port/database, with % codes for special characters"
        raise SettingsError(f"{PREFIX}DATABASE_URL: must be {form}") from None


def make_engine(
    settings: Settings,
    *,
    pool_size: int = 10,
    bounds: Mapping[str, str] | None = None,
    connect_within: float = 10,
    **overrides: Any,
) -> AsyncEngine:
    """An engine whose connections speak UTC and whose statements and lock waits are bounded; `bounds` changes these."""
    server_settings = {**_SERVER_SETTINGS, **(bounds or {})}
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 5,
        "pool_timeout": 30,
        "pool_pre_ping": False,
        "connect_args": {"server_settings": server_settings, "timeout": connect_within, "command_timeout": 90},
    }
    return create_async_engine(database_url(settings), **(options | overrides))
