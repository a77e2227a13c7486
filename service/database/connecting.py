"""Makes connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg


@dataclass(frozen=True)
class Connecting:
    """How to connect: `arguments` of `asyncpg.connect`, and the server's settings for each connection."""

    arguments: Mapping[str, Any]
    server_settings: Mapping[str, str]

    async def connect(self) -> asyncpg.Connection:
        """Open a connection.

        Raises:
            OSError, asyncpg.PostgresError: PostgreSQL cannot be reached, or refuses.
        """
        return await asyncpg.connect(**self.arguments, server_settings=dict(self.server_settings), command_timeout=90)
