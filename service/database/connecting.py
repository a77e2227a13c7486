"""Makes connections, and looks at each before it is used: what it depends on must be as it was asked for.

A pooler may drop startup parameters. A lost time zone would shift the application's naive columns without a word, so
a parameter that still differs after it was set again is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from service.settings import PREFIX, SettingsError

_DEPENDED_ON = frozenset(
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
_LOOK_SECONDS = 10
_SILENT_SERVER_SECONDS = 90
"""When a statement is given up although the server's own bound, which is shorter, did not end it."""


@dataclass(frozen=True)
class Connecting:
    """How to connect: `arguments` of `asyncpg.connect`, and the server's settings for each connection."""

    arguments: Mapping[str, Any]
    server_settings: Mapping[str, str]

    async def connect(self) -> asyncpg.Connection:
        """Open a connection whose settings are those that were asked for.

        Raises:
            SettingsError: a setting that the service depends on cannot be had on this connection.
            OSError, asyncpg.PostgresError: PostgreSQL cannot be reached, or refuses.
        """
        bounded = self.server_settings.get("statement_timeout") != "0"
        connection = await asyncpg.connect(
            **self.arguments,
            server_settings=dict(self.server_settings),
            command_timeout=_SILENT_SERVER_SECONDS if bounded else None,
        )
        try:
            await self._look_at(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _look_at(self, connection: asyncpg.Connection) -> None:
        if not await self._differing(connection):
            return
        await connection.fetch(_SET, *self._depended_on(), timeout=_LOOK_SECONDS)
        if differing := await self._differing(connection):
            told = ", ".join(f"{name} is {found} instead of {wanted}" for name, found, wanted in differing)
            raise SettingsError(
                f"{PREFIX}DATABASE_URL: on this connection {told}. A pooler or the server overrides what levelsync "
                "depends on: connect to PostgreSQL itself, or to a pooler in session mode"
            )

    async def _differing(self, connection: asyncpg.Connection) -> list[tuple[str, str, str]]:
        rows = await connection.fetch(_DIFFERING, *self._depended_on(), timeout=_LOOK_SECONDS)
        return [tuple(row) for row in rows]

    def _depended_on(self) -> tuple[list[str], list[str]]:
        names = sorted(_DEPENDED_ON & self.server_settings.keys())
        return names, [self.server_settings[name] for name in names]
