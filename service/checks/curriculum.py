"""What `doctor` says of specializations, their maxima and levels above them.

They check the specializations that this database has. The level table of X is `x_levels`, where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.result import Checker, CheckFailed, CheckWarned, check
from service.levels import SETTING, Specialization, faults_of, read_curriculum, read_specializations

_LEVEL_TABLES = text("""
    SELECT n.id, quote_ident(c.relname) AS table_name
      FROM unnest(CAST(:names AS text[])) AS n (id)
      JOIN pg_class c ON c.relname = lower(n.id COLLATE "C") || '_levels' AND c.relkind IN ('r', 'p', 'v')
                     AND pg_table_is_visible(c.oid)
     ORDER BY n.id
""")
_OF_THE_APPLICATION = (
    "Levels are the application's: change them there, as it changes its other levels. What the setting "
    f"{SETTING} says can be changed here: docs/curriculum.md."
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
    """Every specialization of this database has a highest level, from the database or from the setting."""
    found = await read_specializations(conn)
    await read_curriculum(conn)  # an empty table and a missing column are said once, not for each name
    wrong = list(faults_of(found).values())
    wrong += [f"max_levels of {one.id} is {one.max_levels}: no event of it can apply" for one in found if _useless(one)]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return ", ".join(_described(one) for one in found)


def _useless(one: Specialization) -> bool:
    return one.max_levels is not None and one.max_levels < 1


def _described(one: Specialization) -> str:
    said = f"{one.id} {one.max_levels}"
    if one.in_database is None:
        return f"{said} (from {SETTING})"
    if one.in_setting not in {None, one.in_database}:
        return f"{said} ({SETTING} says {one.in_setting}: the database counts)"
    return said


@check("Level rows", _OF_THE_APPLICATION)
async def levels_match_rows(conn: AsyncConnection) -> str:
    """The highest level is the number of level rows, for every specialization whose level table has rows."""
    maxima = await known_maxima(conn)
    rows = await level_rows(conn, maxima)
    wrong = disagreements(maxima, rows)
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return f"max_levels equals the level rows of {', '.join(rows)}" if rows else "no level table has rows"


def disagreements(maxima: Mapping[str, int], rows: Mapping[str, int]) -> list[str]:
    """Say for which specializations the number of level rows is not the highest level."""
    return [
        f"{name} has max_levels {maxima[name]} and {count} level rows"
        for name, count in rows.items()
        if maxima[name] != count
    ]


CURRICULUM: tuple[Checker, ...] = (specializations, levels_match_rows)
"""What `scripts/test_curriculum_structure.py` prints."""


_LOOKED_AT = 10_000
"""Newest rows of the history: a bounded look, whatever the table's size."""
_DAYS = 7
_MANY = 5
"""Licenses: fewer may be single decisions of people."""

# levelsync writes a history row for every change of a license, so a license below its newest row was lowered by
# somebody else. So was one whose newest row goes down and does not have a reason that levelsync writes.
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
    "are still in Kafka. Switch it off; let levelsync make wanted demotions: levelsync sync.",
)
async def falling_levels(conn: AsyncConnection) -> str:
    """No run of licenses was lowered by somebody else in the last days."""
    found = (await conn.execute(_LOWERED, {"looked_at": _LOOKED_AT, "days": _DAYS})).all()
    if len(found) < _MANY:
        return f"fewer than {_MANY} licenses were lowered by anybody but levelsync in the last {_DAYS} days"
    shown = ", ".join(
        f"user {row.user_id} in {row.specialization} from {row.before} to {row.level}" for row in found[:3]
    )
    raise CheckWarned(f"{len(found)} licenses were lowered in the last {_DAYS} days, and not by levelsync: {shown}")


WARNINGS: tuple[Checker, ...] = (falling_levels,)
"""What `doctor` warns of: no fault by itself."""
