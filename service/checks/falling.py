"""Whether something beside levelsync lowers levels, as the application's own synchronisation jobs do."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.result import Checker, CheckWarned, check

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
