"""The three edge cases of the user's own checks, under their own names."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from service.checks.curriculum import disagreements, known_maxima, level_rows
from service.checks.result import Checker, CheckFailed, check
from service.core.names import fold
from service.levels import FALLBACK, LicenseSystemHelper
from service.store.application import PROGRESS
from service.store.catalog import find_unique

_DUPLICATES = text("""
    SELECT student_id, specialization_id, count(*) AS rows FROM specialization_progress
     WHERE student_id IS NOT NULL AND specialization_id IS NOT NULL
     GROUP BY 1, 2 HAVING count(*) > 1 ORDER BY 1, 2 LIMIT 10
""")
# While this table is there, it is the one that `specializations` means: temporary tables come first in the search_path.
_SHADOW = text("CREATE TEMPORARY TABLE specializations ON COMMIT DROP AS SELECT text 'A' AS id, 1 AS max_levels")
_CHANGE = text("UPDATE pg_temp.specializations SET max_levels = :level")
_MAY_CREATE_TEMPORARY = text("""
    SELECT has_database_privilege(current_database(), 'TEMPORARY')
       AND current_setting('transaction_read_only') = 'off'
""")
_NOBODY_HAS = 4711


@check(
    "Max level sync",
    "Correct the levels in the application, or the fallback in service/levels.py, which only answers callers without a "
    "database: docs/curriculum.md.",
)
async def max_level_sync(conn: AsyncConnection) -> str:
    """The highest level is the number of level rows, and the helper's fallback says the same of the names it has."""
    maxima = await known_maxima(conn)
    wrong = disagreements(maxima, await level_rows(conn, maxima))
    both = {name: FALLBACK[fold(name)] for name in maxima if fold(name) in FALLBACK}
    wrong += [
        f"{name} is {maxima[name]} in the DB and {fallback} in the Helper fallback"
        for name, fallback in both.items()
        if maxima[name] != fallback
    ]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    same = ", ".join(f"{name} now {level}" for name, level in both.items())
    lacking = sorted(FALLBACK.keys() - {fold(name) for name in maxima})
    note = f"note: only the Helper fallback has {', '.join(lacking)}" if lacking else ""
    return "; ".join(filter(None, [same and f"{same} in both DB and Helper fallback", note]))


@check(
    "Duplicate progress records",
    "Run: levelsync migrate, which removes duplicates and adds the constraint. Where it has run already, remove all "
    "but one row of each pair, then run: "
    "ALTER TABLE specialization_progress ADD UNIQUE (student_id, specialization_id)",
)
async def duplicate_progress(conn: AsyncConnection) -> str:
    """No pair has two progress rows, and a unique constraint keeps it so."""
    found = [
        f"user {row.student_id} has {row.rows} in {row.specialization_id}" for row in await conn.execute(_DUPLICATES)
    ]
    if found:
        raise CheckFailed("; ".join(found))
    if await conn.run_sync(find_unique, PROGRESS, ("student_id", "specialization_id")) is None:
        raise CheckFailed("there are none, but no unique constraint on (student_id, specialization_id) prevents them")
    return "unique constraint prevents"


@check("Helper queries DB dynamically", "Look at the log for why LicenseSystemHelper could not read specializations.")
async def helper_is_dynamic(conn: AsyncConnection) -> str:
    """The helper answers what the database has, and follows a change: of a temporary table, never the application's."""
    maxima = await known_maxima(conn)
    return await conn.run_sync(_ask_and_change, {name: level for name, level in maxima.items() if level > 0})


def _ask_and_change(conn: Connection, maxima: Mapping[str, int]) -> str:
    with Session(bind=conn) as session:
        for name, level in maxima.items():
            _compare(session, name, level)
        if not conn.scalar(_MAY_CREATE_TEMPORARY):
            return f"the helper says what the database has for {', '.join(maxima) or 'no specialization'}"
        session.execute(_SHADOW)
        for level in (_NOBODY_HAS, _NOBODY_HAS + 1):
            session.execute(_CHANGE, {"level": level})
            _compare(session, "A", level)
    return f"the helper says what the database has for {', '.join(maxima)}, and follows a change"


def _compare(session: Session, name: str, level: int) -> None:
    answer = LicenseSystemHelper.get_specialization_max_level(name, session)
    if answer != level:
        raise CheckFailed(f"the database has {level} for {name}, and the helper says {answer}")


EDGE_CASES: tuple[Checker, ...] = (max_level_sync, duplicate_progress, helper_is_dynamic)
"""What `scripts/test_edge_cases.py` prints."""
