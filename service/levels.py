"""How high a specialization goes: the only place that knows (R11 to R13)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

log = logging.getLogger(__name__)

# The seed's fallback (R12): for callers of the helper without a database; it never decides a write of this service.
FALLBACK = {"COACH": 8, "PLAYER": 8, "INTERNSHIP": 3}

_READ_ONE = text("SELECT max_levels FROM public.specializations WHERE upper(id) = :id ORDER BY id = :id DESC LIMIT 1")
_READ_ALL = text("SELECT id, max_levels FROM public.specializations WHERE max_levels IS NOT NULL")


class LicenseSystemHelper:
    """The seed's helper, under its own name."""

    @staticmethod
    def get_specialization_max_level(specialization: str, db: Any = None) -> int:
        """The number of levels of a specialization, matched without case; the database is the source of truth.

        `db` is a synchronous SQLAlchemy session. Without one, without a row, with a level that is no level, or where
        the query fails, it is the fallback: COACH 8, PLAYER 8, INTERNSHIP 3, anything else 1. The query runs in a
        savepoint, so that a failed one leaves the session usable, and its failure is logged.
        """
        name = specialization.upper()
        found = _ask(name, db) if db is not None else None
        return int(found or FALLBACK.get(name, 1))


def _ask(name: str, db: Any) -> int | None:
    try:
        with db.begin_nested():
            found: int | None = db.execute(_READ_ONE, {"id": name}).scalar()
            return found
    except Exception:
        log.exception("max_levels of %s could not be read: the fallback is used", name)
        return None


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The specializations as the database has them at one moment: id → max_levels."""

    levels: Mapping[str, int]
    _without_case: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, levels: Mapping[str, int]) -> Curriculum:
        """Make one, with its index for names in another case."""
        return cls(levels, {name.upper(): name for name in sorted(levels, reverse=True)})

    @property
    def empty(self) -> bool:
        """Whether there is no specialization at all: a fault of the installation (law 4)."""
        return not self.levels

    def canonical(self, name: str) -> str | None:
        """The id as `specializations` writes it: an exact match first, else without case; None where there is none."""
        return name if name in self.levels else self._without_case.get(name.upper())

    def max_level(self, canonical: str) -> int:
        """The highest level of a specialization, by its canonical id."""
        return self.levels[canonical]


async def read_curriculum(conn: AsyncConnection) -> Curriculum:
    """Ask the database: active or not, every specialization counts (R9c)."""
    return Curriculum.of({row.id: row.max_levels for row in await conn.execute(_READ_ALL)})
