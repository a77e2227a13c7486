"""Read the pairs that differ now. PostgreSQL compares and streams them, so that no whole table is in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from events.base import INT8_MAX
from service.core.names import DriftKind
from service.levels import read_curriculum
from service.sync import level

_ACTIONS = {
    "missing_license": "create_license_from_progress",
    "missing_progress": "create_progress_from_license",
    "duplicate": "remove_by_hand",
    "unknown_specialization": "remove_by_hand",
}
_DECIDE = "decide_level"
_FIRST_WINDOW, _LARGEST_WINDOW = 2_000, 100_000
"""Rows of a table that a page compares at once: few at first, which is enough if many pairs differ."""


@dataclass(frozen=True, slots=True)
class DesyncIssue:
    """A pair that differs. `issue_type` is a kind of law 8. A level is None if there is no row or its level is NULL."""

    user_id: int
    user_email: str | None
    specialization: str
    progress_level: int | None
    license_level: int | None
    difference: int | None
    recommended_action: str
    """`decide_level` needs `levelsync sync USER --specialization X --level N`. No write can repair `remove_by_hand`."""
    issue_type: str

    def as_dict(self) -> dict[str, Any]:
        """Return the issue with the keys that clients read."""
        return asdict(self)


async def stream_issues(conn: AsyncConnection, specialization: str | None) -> AsyncGenerator[DesyncIssue, None]:
    """Yield every pair that differs now, by user and specialization, through a server-side cursor."""
    query = level.issues(of_one_specialization=specialization is not None)
    values: dict[str, object] = {**(await read_curriculum(conn)).parameters}
    values |= {} if specialization is None else {"specialization": specialization}
    async with conn.stream(query, values) as rows:
        async for row in rows:
            yield issue_of(row)


async def page_of_issues(
    conn: AsyncConnection, specialization: str | None, after: tuple[int, str], limit: int
) -> list[DesyncIssue]:
    """Read `limit` pairs that differ now, after `after` (user, specialization). Only the last page has fewer.

    This compares one window of users after another until the page is full. So its memory and cost depend neither on the
    differences in the rest of the tables, nor on where the page begins.
    """
    query = level.issues_of_window(of_one_specialization=specialization is not None)
    curriculum = await read_curriculum(conn)
    values: dict[str, object] = {"after_user": after[0], "after_specialization": after[1], **curriculum.parameters}
    values |= {} if specialization is None else {"specialization": specialization}
    found: list[DesyncIssue] = []
    start, rows = after[0], _FIRST_WINDOW
    while start <= INT8_MAX and len(found) < limit:
        upto = (await conn.execute(level.NEXT_WINDOW, {"from_user": start, "rows": rows})).scalar_one() or INT8_MAX
        window = {"from_user": start, "upto_user": upto, "limit": limit - len(found)}
        found += [issue_of(row) for row in await conn.execute(query, values | window)]
        start, rows = upto + 1, min(rows * 4, _LARGEST_WINDOW)
    return found


def issue_of(row: Any) -> DesyncIssue:
    """Return the issue of a row with a pair's levels, its kind and its user's email address."""
    progress, license_ = row.progress_level, row.license_level
    both = progress is not None and license_ is not None
    return DesyncIssue(
        row.user_id,
        row.user_email,
        row.specialization,
        progress,
        license_,
        abs(progress - license_) if both else None,
        _recommended(row.issue_type, progress, license_),
        row.issue_type,
    )


def _recommended(kind: str, progress: int | None, license_: int | None) -> str:
    """Recommend the direction that raises a level: more likely it is missing on one side than wrong on the other."""
    if kind == DriftKind.MISMATCHED:
        return "sync_progress_to_license" if (progress or 0) > (license_ or 0) else "sync_license_to_progress"
    return _ACTIONS.get(kind, _DECIDE)
