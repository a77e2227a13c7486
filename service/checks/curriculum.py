"""Whether the highest level of every specialization is known, and what the level tables say of it.

They check the specializations that this database has. The level table of X is `x_levels`, where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.result import Checker, CheckFailed, check
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
