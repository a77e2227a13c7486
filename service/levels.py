"""How high a specialization goes. The database knows; this is the only place that asks it (R11 to R13).

Appliers, syncs and scans use `read_curriculum`. `LicenseSystemHelper` is for the application's own code: its fallback
answers callers without a database and never decides a write.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

FALLBACK: Mapping[str, int] = {"COACH": 8, "PLAYER": 8, "INTERNSHIP": 3}
"""What `LicenseSystemHelper` answers where the database does not (R12). `doctor` compares it with the database."""

_UNKNOWN = 1
_ALL = text("SELECT id, coalesce(max_levels, 0) AS max_levels FROM specializations")
_ONE = text("""
    SELECT max_levels FROM specializations
     WHERE upper(id) = upper(:name) ORDER BY id = :name DESC, id LIMIT 1
""")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The specializations of one moment: each name as the database writes it, and its highest level."""

    levels: Mapping[str, int]
    _by_upper: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = {name.upper(): name for name in sorted(self.levels, reverse=True)}
        object.__setattr__(self, "_by_upper", names)

    @property
    def empty(self) -> bool:
        """Whether there is no specialization at all: a fault of the installation, never of a record (law 4)."""
        return not self.levels

    def canonical(self, name: str) -> str | None:
        """Give the name as the database writes it: the exact one, else the same without case, else None."""
        return name if name in self.levels else self._by_upper.get(name.upper())

    def max_level(self, canonical: str) -> int:
        """Give the highest level of a specialization, named as `canonical` gives it.

        Raises:
            KeyError: there is no such specialization.
        """
        return self.levels[canonical]


async def max_levels(conn: AsyncConnection) -> dict[str, int]:
    """Read every specialization, active or not, with its highest level."""
    return {row.id: row.max_levels for row in await conn.execute(_ALL)}


async def read_curriculum(conn: AsyncConnection) -> Curriculum:
    """Read the specializations as they are now; a new row counts from the next call on (R9c)."""
    return Curriculum(await max_levels(conn))


class LicenseSystemHelper:
    """The application's question, under its own name."""

    @staticmethod
    def get_specialization_max_level(specialization: str, db: Session | None = None) -> int:
        """Give the highest level of a specialization, its name in any case.

        Without `db`, for a name that the database does not have, for a `max_levels` of nothing or 0, and where the
        query fails: COACH 8, PLAYER 8, INTERNSHIP 3, anything else 1 (R12). A failed query is logged and leaves the
        session as usable as it was.
        """
        found = None if db is None else _ask(specialization, db)
        return found or FALLBACK.get(specialization.upper(), _UNKNOWN)


def _ask(specialization: str, db: Session) -> int | None:
    try:
        # A savepoint of the connection, not of the session: that one would also flush what the caller has not yet
        # flushed, and a fault of the caller's rows would look like a fault of this question.
        with db.connection().begin_nested():
            found: int | None = db.connection().scalar(_ONE, {"name": specialization})
    except Exception:
        log.warning("max_levels of %r cannot be read; the fallback answers", specialization, exc_info=True)
        return None
    return found
