"""Rows of the audit log for what is written from a terminal."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


def me() -> str:
    """Return who is at the terminal."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "cli"


async def record(conn: AsyncConnection, action: str, detail: str = "", **arguments: Any) -> None:
    """Leave a row in the transaction of the write that it tells of."""
    from service.admin.audit import Actor, Entry

    await Entry(Actor(me(), "shell"), action, arguments).done(conn, detail)
