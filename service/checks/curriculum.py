"""Check the application's curriculum and data.

The checks cover the specializations in this database. The optional table `x_levels` has a row for each level of X.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from service.checks.result import Checker, CheckFailed, CheckWarned, check
from service.core.names import fold
from service.levels import (
    FALLBACK,
    SETTING,
    LicenseSystemHelper,
    Specialization,
    faults_of,
    read_curriculum,
    read_specializations,
)
from service.store.application import PROGRESS
from service.store.catalog import find_unique

_LEVEL_TABLES = text("""
    SELECT n.id, quote_ident(c.relname) AS table_name
      FROM unnest(CAST(:names AS text[])) AS n (id)
      JOIN pg_class c ON c.relname = lower(n.id COLLATE "C") || '_levels' AND c.relkind IN ('r', 'p', 'v')
                     AND pg_table_is_visible(c.oid)
     ORDER BY n.id
""")
_OF_THE_APPLICATION = (
    "The application owns its levels: change them there. Only the values of the setting "
    f"{SETTING} can be changed here: docs/curriculum.md."
)


async def known_maxima(conn: AsyncConnection) -> dict[str, int]:
    """Return the highest level of each specialization that has one."""
    return {one.id: one.max_levels for one in await read_specializations(conn) if one.max_levels is not None}


async def level_rows(conn: AsyncConnection, names: Mapping[str, int]) -> dict[str, int]:
    """Count the level rows of each specialization that has a level table with rows in it."""
    tables = (await conn.execute(_LEVEL_TABLES, {"names": list(names)})).all()
    counts = {row.id: await conn.scalar(text(f"SELECT count(*) FROM {row.table_name}")) for row in tables}
    return {name: count for name, count in counts.items() if count}


@check("Specializations", _OF_THE_APPLICATION)
async def specializations(conn: AsyncConnection) -> str:
    """Check that every specialization has a highest level, from the database or from the setting."""
    found = await read_specializations(conn)
    await read_curriculum(conn)  # reports an empty table or a missing column once, not for each name
    wrong = list(faults_of(found).values())
    wrong += [
        f"max_levels of {one.id} is {one.max_levels}: no event of it can apply" for one in found if _has_no_level(one)
    ]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return ", ".join(_describe(one) for one in found)


def _has_no_level(one: Specialization) -> bool:
    return one.max_levels is not None and one.max_levels < 1


def _describe(one: Specialization) -> str:
    description = f"{one.id} {one.max_levels}"
    if one.in_database is None:
        return f"{description} (from {SETTING})"
    if one.in_setting not in {None, one.in_database}:
        return f"{description} ({SETTING} has {one.in_setting}, which the database overrides)"
    return description


@check("Level rows", _OF_THE_APPLICATION)
async def levels_match_rows(conn: AsyncConnection) -> str:
    """Check that the highest level is the number of level rows, where a level table has rows."""
    maxima = await known_maxima(conn)
    rows = await level_rows(conn, maxima)
    wrong = disagreements(maxima, rows)
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return f"max_levels equals the level rows of {', '.join(rows)}" if rows else "no level table has rows"


def disagreements(maxima: Mapping[str, int], rows: Mapping[str, int]) -> list[str]:
    """Describe the specializations whose number of level rows is not their highest level."""
    return [
        f"{name} has max_levels {maxima[name]} and {count} level rows"
        for name, count in rows.items()
        if maxima[name] != count
    ]


CURRICULUM: tuple[Checker, ...] = (specializations, levels_match_rows)
"""The checks of `scripts/test_curriculum_structure.py`."""


_LOOKED_AT = 10_000
"""Newest rows of the history that are read. It bounds the time, whatever the table's size."""
_DAYS = 7
_MANY = 5
"""Licenses from which the check warns. Fewer may be decisions of people."""
_OTHERS = "something other than levelsync"

# levelsync writes a history row for every change of a license. So a license below its newest row was not lowered by
# levelsync, and neither was one whose newest row goes down with a reason that levelsync does not write.
_LOWERED = text("""
    WITH recent AS (
        SELECT id, user_license_id, from_level, to_level, advancement_reason, advanced_at
          FROM license_progressions ORDER BY id DESC LIMIT :looked_at),
    newest AS (SELECT DISTINCT ON (user_license_id) * FROM recent ORDER BY user_license_id, id DESC)
    SELECT l.user_id, l.specialization_type AS specialization, l.current_level AS level,
           greatest(n.from_level, n.to_level) AS before
      FROM newest n JOIN user_licenses l ON l.id = n.user_license_id
     WHERE n.advanced_at > localtimestamp - CAST(:days AS int) * interval '1 day'
       AND (l.current_level < n.to_level
            OR n.to_level < n.from_level
               AND coalesce(n.advancement_reason, '') !~ '^(ProgressLeveledUp|sync|reconcile|level decided)')
     ORDER BY n.id DESC
""")


@check(
    "Falling levels",
    "Another job may synchronise the same tables, such as the application's auto_sync_all, which undoes advances that "
    "are still in Kafka. Switch it off, and use levelsync sync for demotions that you want.",
)
async def falling_levels(conn: AsyncConnection) -> str:
    """Check that few licenses were lowered in the last days by anything but levelsync."""
    found = (await conn.execute(_LOWERED, {"looked_at": _LOOKED_AT, "days": _DAYS})).all()
    if len(found) < _MANY:
        return f"fewer than {_MANY} licenses were lowered by {_OTHERS} in the last {_DAYS} days"
    shown = ", ".join(
        f"user {row.user_id} in {row.specialization} from {row.before} to {row.level}" for row in found[:3]
    )
    raise CheckWarned(f"{len(found)} licenses were lowered by {_OTHERS} in the last {_DAYS} days: {shown}")


WARNINGS: tuple[Checker, ...] = (falling_levels,)
"""The checks of which `doctor` only warns, because their findings may be intended."""


_DUPLICATES = text("""
    SELECT student_id, specialization_id, count(*) AS rows FROM specialization_progress
     WHERE student_id IS NOT NULL AND specialization_id IS NOT NULL
     GROUP BY 1, 2 HAVING count(*) > 1 ORDER BY 1, 2 LIMIT 10
""")
# While this table exists, the name `specializations` means it, because temporary tables come first in the search_path.
_SHADOW = text("CREATE TEMPORARY TABLE specializations ON COMMIT DROP AS SELECT text 'A' AS id, 1 AS max_levels")
_CHANGE = text("UPDATE pg_temp.specializations SET max_levels = :level")
_MAY_CREATE_TEMPORARY = text("""
    SELECT has_database_privilege(current_database(), 'TEMPORARY')
       AND current_setting('transaction_read_only') = 'off'
""")
_UNUSED_LEVEL = 4711


@check(
    "Max level sync",
    "Correct the levels in the application, or the fallback in service/levels.py, which only answers callers without a "
    "database: docs/curriculum.md.",
)
async def max_level_sync(conn: AsyncConnection) -> str:
    """Check that the highest level is the number of level rows, and that the helper's fallback agrees with it."""
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
    """Check that no pair has two progress rows, and that a unique constraint prevents them."""
    found = [
        f"user {row.student_id} has {row.rows} in {row.specialization_id}" for row in await conn.execute(_DUPLICATES)
    ]
    if found:
        raise CheckFailed("; ".join(found))
    if await conn.run_sync(find_unique, PROGRESS, ("student_id", "specialization_id")) is None:
        raise CheckFailed("there are none, but no unique constraint on (student_id, specialization_id) prevents them")
    return "unique constraint prevents"


@check("Helper queries DB dynamically", "The log shows why LicenseSystemHelper could not read specializations.")
async def helper_is_dynamic(conn: AsyncConnection) -> str:
    """Check that the helper returns the database's maxima, and follows a change, which is made in a temporary table."""
    maxima = await known_maxima(conn)
    return await conn.run_sync(_ask_and_change, {name: level for name, level in maxima.items() if level > 0})


def _ask_and_change(conn: Connection, maxima: Mapping[str, int]) -> str:
    with Session(bind=conn) as session:
        for name, level in maxima.items():
            _compare(session, name, level)
        if not conn.scalar(_MAY_CREATE_TEMPORARY):
            return f"the helper returns the database's maximum of {', '.join(maxima) or 'no specialization'}"
        session.execute(_SHADOW)
        for level in (_UNUSED_LEVEL, _UNUSED_LEVEL + 1):
            session.execute(_CHANGE, {"level": level})
            _compare(session, "A", level)
    return f"the helper returns the database's maximum of {', '.join(maxima)}, and follows a change"


def _compare(session: Session, name: str, level: int) -> None:
    answer = LicenseSystemHelper.get_specialization_max_level(name, session)
    if answer != level:
        raise CheckFailed(f"the database has {level} for {name}, and the helper returns {answer}")


EDGE_CASES: tuple[Checker, ...] = (max_level_sync, duplicate_progress, helper_is_dynamic)
"""The checks of `scripts/test_edge_cases.py`."""
