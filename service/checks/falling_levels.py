"""Whether something else than levelsync lowers licenses: another synchroniser, or demotions that nobody declared."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.result import CheckFailed, check

_EXAMPLES = 5
# levelsync leaves a fence with the level to which it lowered a pair. A license that fell without one was lowered by
# somebody else: its latest history row says so, or it stands below what that row says.
_FALLEN = text(r"""
    SELECT l.user_id, l.specialization_type AS name, greatest(g.from_level, g.to_level) AS was,
           least(g.to_level, l.current_level) AS now, count(*) OVER () AS number
      FROM (SELECT DISTINCT ON (user_license_id) user_license_id, from_level, to_level FROM license_progressions
             WHERE advanced_at > timezone('UTC', now()) - interval '24 hours'
             ORDER BY user_license_id, advanced_at DESC, to_level DESC) AS g
      JOIN user_licenses l ON l.id = g.user_license_id
     WHERE (g.to_level < g.from_level OR l.current_level < g.to_level)
       AND NOT EXISTS (SELECT FROM levelsync.fences f
                        WHERE f.user_id = l.user_id AND f.level = least(g.to_level, l.current_level)
                          AND upper(f.specialization COLLATE "C") = upper(l.specialization_type::text COLLATE "C"))
     ORDER BY l.user_id, name LIMIT :examples
""")


@check(
    "Falling levels",
    "Switch off whatever else synchronises the two tables, and lower levels through levelsync only: docs/adopt.md.",
)
async def falling_levels(conn: AsyncConnection) -> str:
    """No license fell in the last 24 hours but by a decision of levelsync's."""
    fallen = (await conn.execute(_FALLEN, {"examples": _EXAMPLES})).all()
    if fallen:
        named = ", ".join(f"user {row.user_id} in {row.name} from {row.was} to {row.now}" for row in fallen)
        raise CheckFailed(f"{fallen[0].number} licenses fell in the last 24 hours, not by levelsync: {named}")
    return "no license fell in the last 24 hours but by levelsync"
