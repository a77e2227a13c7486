"""Whether `specializations` says what the level tables hold, and what the design expects (R34).

More specializations are fine (R9c). The level table of X is `x_levels`, where it has one.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.result import Checker, CheckFailed, check
from service.levels import FALLBACK, read_specializations

_LEVEL_TABLES = text("""
    SELECT s.id, quote_ident(c.relname) AS table_name
      FROM specializations s
      JOIN pg_class c ON c.oid = to_regclass(quote_ident(lower(s.id::text) || '_levels'))
                     AND c.relkind IN ('r', 'p', 'v')
     ORDER BY s.id
""")


async def max_levels(conn: AsyncConnection) -> dict[str, int]:
    """Read the highest level of each specialization, 0 where none is known."""
    return {one.id: one.max_levels or 0 for one in await read_specializations(conn)}


async def level_rows(conn: AsyncConnection) -> dict[str, int]:
    """Count the level rows of each specialization that has a level table."""
    tables = (await conn.execute(_LEVEL_TABLES)).all()
    return {row.id: await conn.scalar(text(f"SELECT count(*) FROM {row.table_name}")) or 0 for row in tables}


@check("Specializations", "Write the missing rows into specializations, or correct max_levels: docs/curriculum.md.")
async def specializations(conn: AsyncConnection) -> str:
    """The three of the design are there, with 8, 8 and 3 levels."""
    found = await max_levels(conn)
    if not found:
        raise CheckFailed("the table specializations is empty: no event can be applied")
    wrong = [
        f"{name} is missing" if name not in found else f"{name} has max_levels {found[name]}, not {levels}"
        for name, levels in FALLBACK.items()
        if found.get(name) != levels
    ]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return ", ".join(f"{name} {levels}" for name, levels in sorted(found.items()))


@check("Level rows", "Add or remove level rows, or correct max_levels, so that both agree: docs/curriculum.md.")
async def levels_match_rows(conn: AsyncConnection) -> str:
    """`max_levels` is the number of level rows, for every specialization that has a level table."""
    maxima, rows = await max_levels(conn), await level_rows(conn)
    wrong = disagreements(maxima, rows)
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return f"max_levels equals the level rows of {', '.join(rows) or 'no specialization: there are no level tables'}"


def disagreements(maxima: dict[str, int], rows: dict[str, int]) -> list[str]:
    """Say for which specializations the number of level rows is not `max_levels`."""
    return [
        f"{name} has max_levels {maxima[name]} and {count} level rows"
        for name, count in rows.items()
        if maxima[name] != count
    ]


CURRICULUM: tuple[Checker, ...] = (specializations, levels_match_rows)
"""What `scripts/test_curriculum_structure.py` prints."""
