"""A specialization as the database writes it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from service.admin.errors import Refused
from service.levels import read_curriculum


async def canonical(conn: AsyncConnection, name: str | None) -> str | None:
    """Return the specialization's own name, whatever the case it was written in; None (all of them) stays None.

    Raises:
        Refused: there is no such specialization; the text names those that there are.
        InstallationFault: no specialization can be used, so nothing can be compared or synced.
    """
    curriculum = await read_curriculum(conn)
    if name is None:
        return None
    found = curriculum.canonical(name)
    if found is None:
        raise Refused(f"There is no specialization {name!r}; there are {', '.join(curriculum.names)}.")
    return found
