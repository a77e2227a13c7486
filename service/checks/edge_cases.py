"""The three edge cases of the user's own checks, under their own names (R34)."""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from service.checks.curriculum import disagreements, level_rows, max_levels
from service.checks.result import Checker, CheckFailed, check
from service.database.application import PROGRESS
from service.database.catalog import find_unique
from service.levels import FALLBACK, LicenseSystemHelper

_DUPLICATES = text("""
    SELECT student_id, specialization_id, count(*) AS rows FROM specialization_progress
     WHERE student_id IS NOT NULL AND specialization_id IS NOT NULL
     GROUP BY 1, 2 HAVING count(*) > 1 ORDER BY 1, 2 LIMIT 10
""")


@check("Max level sync", "Correct specializations.max_levels or the level rows: docs/curriculum.md.")
async def max_level_sync(conn: AsyncConnection) -> str:
    """The database's `max_levels` is the number of level rows, and the helper's fallback says the same."""
    maxima = await max_levels(conn)
    wrong = disagreements(maxima, await level_rows(conn))
    wrong += [
        f"{name} is {maxima.get(name, 'missing')} in the DB and {fallback} in the Helper fallback"
        for name, fallback in FALLBACK.items()
        if maxima.get(name) != fallback
    ]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return ", ".join(f"{name} now {level}" for name, level in FALLBACK.items()) + " in both DB and Helper fallback"


@check("Duplicate progress records", "Run: levelsync migrate (it removes duplicates and adds the constraint).")
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
    """The helper's answer follows a change of `max_levels`, which is rolled back."""
    return await conn.run_sync(_change_and_ask)


def _change_and_ask(conn: Connection) -> str:
    name = conn.scalar(text("SELECT id FROM specializations ORDER BY id LIMIT 1"))
    if name is None:
        raise CheckFailed("there is no specialization to ask for")
    with Session(bind=conn) as session:
        before = LicenseSystemHelper.get_specialization_max_level(name, session)
        change = text("UPDATE specializations SET max_levels = :level WHERE id = :name")
        session.execute(change, {"level": before + 1, "name": name})
        after = LicenseSystemHelper.get_specialization_max_level(name, session)
    if after != before + 1:
        raise CheckFailed(f"{name} was changed from {before} to {before + 1}, and the helper says {after}")
    return f"{name} changed from {before} to {after} for a moment, and the helper said so"


EDGE_CASES: tuple[Checker, ...] = (max_level_sync, duplicate_progress, helper_is_dynamic)
"""What `scripts/test_edge_cases.py` prints."""
