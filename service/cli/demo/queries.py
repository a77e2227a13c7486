"""The SQL of the demo: what it reads, and what it writes in place of the application."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.names import fold

PairKey = tuple[int, str]

_PAIRS = """
    SELECT coalesce(p.student_id, l.user_id) AS user_id,
           coalesce(p.specialization_id, l.specialization_type) AS specialization,
           p.current_level AS progress, l.current_level AS license
      FROM specialization_progress p
      FULL JOIN user_licenses l
        ON l.user_id = p.student_id AND l.specialization_type = p.specialization_id
"""
_ALL = text(f"SELECT * FROM ({_PAIRS}) pairs ORDER BY user_id, specialization")
_HISTORY = text("""
    SELECT l.user_id, l.specialization_type AS specialization, h.from_level, h.to_level, h.advanced_at,
           h.advancement_reason AS reason
      FROM license_progressions h
      JOIN user_licenses l ON l.id = h.user_license_id
     WHERE h.id > :after
     ORDER BY h.id
""")
_LAST_HISTORY_ID = text("SELECT coalesce(max(id), 0) FROM license_progressions")
_FINGERPRINT = text("""
    SELECT (SELECT md5(string_agg(t::text, '' ORDER BY t.id)) FROM specialization_progress t)
        || (SELECT md5(string_agg(t::text, '' ORDER BY t.id)) FROM user_licenses t)
        || (SELECT count(*) FROM license_progressions)
        || '/' || (SELECT count(*) FROM levelsync.dead_letters)
""")
_SPECIALIZATIONS = text("SELECT id FROM specializations")
_OWN_PROGRESS = text("""
    INSERT INTO specialization_progress AS p
           (student_id, specialization_id, current_level, total_xp, completed_sessions, completed_projects)
    VALUES (:user_id, :specialization, :to_level, 0, 0, 0)
    ON CONFLICT (student_id, specialization_id)
    DO UPDATE SET current_level = greatest(p.current_level, excluded.current_level)
""")
_OWN_LICENSE = text("""
    INSERT INTO user_licenses AS l
           (user_id, specialization_type, current_level, max_achieved_level, started_at)
    VALUES (:user_id, :specialization, :to_level, :to_level, timezone('UTC', now()))
    ON CONFLICT (user_id, specialization_type)
    DO UPDATE SET current_level = greatest(l.current_level, excluded.current_level),
                  max_achieved_level = greatest(l.max_achieved_level, excluded.current_level)
""")
_DAMAGE = (
    text("""
        UPDATE user_licenses SET current_level = current_level - 2
         WHERE (user_id, specialization_type) IN ((112, 'PLAYER'), (116, 'INTERNSHIP'))
    """),
    text("DELETE FROM user_licenses WHERE user_id = 121 AND specialization_type = 'PLAYER'"),
    text("""
        UPDATE specialization_progress SET current_level = current_level + 3
         WHERE student_id = 120 AND specialization_id = 'COACH'
    """),
)
DAMAGED: tuple[PairKey, ...] = ((112, "PLAYER"), (116, "INTERNSHIP"), (120, "COACH"), (121, "PLAYER"))
"""The pairs that `damage` changes. They belong to sample users without sample events."""


@dataclass(frozen=True)
class ShownPair:
    """One user in one specialization, with the level in each table; None where there is no row."""

    user_id: int
    specialization: str
    progress: int | None
    license: int | None

    @property
    def agrees(self) -> bool:
        """Whether both tables have the same level."""
        return self.progress == self.license


@dataclass(frozen=True)
class HistoryRow:
    """A row of `license_progressions`: one change of a license."""

    user_id: int
    specialization: str
    from_level: int
    to_level: int
    advanced_at: datetime
    reason: str | None


async def all_pairs(conn: AsyncConnection) -> dict[PairKey, ShownPair]:
    """Read every pair of both tables."""
    pairs = [ShownPair(**row) for row in (await conn.execute(_ALL)).mappings()]
    return {(pair.user_id, pair.specialization): pair for pair in pairs}


async def history_after(conn: AsyncConnection, row_id: int) -> list[HistoryRow]:
    """Read the history rows above an id."""
    return [HistoryRow(**row) for row in (await conn.execute(_HISTORY, {"after": row_id})).mappings()]


async def last_history_id(conn: AsyncConnection) -> int:
    """Return the id of the newest history row; 0 if there is none."""
    return int((await conn.execute(_LAST_HISTORY_ID)).scalar_one())


async def fingerprint(conn: AsyncConnection) -> str:
    """Return a text that changes when any column of any row in the two tables changes, or a row is added elsewhere."""
    return str((await conn.execute(_FINGERPRINT)).scalar_one())


async def specializations(conn: AsyncConnection) -> dict[str, str]:
    """Return the id of every specialization by its folded form."""
    return {fold(name): name for name in (await conn.execute(_SPECIALIZATIONS)).scalars()}


async def write_own_rows(
    conn: AsyncConnection, *, progress: Iterable[dict[str, object]], licenses: Iterable[dict[str, object]]
) -> None:
    """Write the rows that the application writes before it publishes."""
    for statement, rows in ((_OWN_PROGRESS, list(progress)), (_OWN_LICENSE, list(licenses))):
        if rows:
            await conn.execute(statement, rows)
    await conn.commit()


async def damage(conn: AsyncConnection) -> None:
    """Change both tables without an event: lower two licenses, remove one, raise one progress row."""
    for statement in _DAMAGE:
        await conn.execute(statement)
    await conn.commit()
