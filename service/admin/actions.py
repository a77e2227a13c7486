"""Read the audit log: who asked for what, and with which outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_READ = text("""
    SELECT id, at, subject, role, action, arguments, outcome, detail, request_id, client_address, times
      FROM levelsync.admin_actions
     WHERE (CAST(:since AS timestamptz) IS NULL OR at >= CAST(:since AS timestamptz))
       AND (CAST(:subject AS text) IS NULL OR subject = CAST(:subject AS text))
     ORDER BY at DESC, id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class AdminAction:
    """One row. `times` is how often it happened where one row stands for many; `client_address` may be empty."""

    id: int
    at: datetime
    subject: str
    role: str
    action: str
    arguments: dict[str, Any]
    outcome: str
    detail: str
    request_id: str
    client_address: str
    times: int


async def read_actions(
    conn: AsyncConnection, since: datetime | None = None, subject: str | None = None, limit: int = 1000
) -> list[AdminAction]:
    """Read rows of the audit log, the newest first."""
    rows = await conn.execute(_READ, {"since": since, "subject": subject, "limit": limit})
    return [AdminAction(**row) for row in rows.mappings()]
