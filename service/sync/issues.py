"""The pairs that differ now: streamed from PostgreSQL, which compares. The whole table is never in memory."""

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
"""Rows of a table that a page compares at once: few at first, because where much differs few are enough."""


@dataclass(frozen=True, slots=True)
class DesyncIssue:
    """A pair that differs. `issue_type` is one of law 8's kinds; a level is None where the row or its level is."""

    user_id: int
    user_email: str | None
    specialization: str
    progress_level: int | None
    license_level: int | None
    difference: int | None
    recommended_action: str
    """`decide_level`: `levelsync sync USER --specialization X --level N`; `remove_by_hand`: no write can repair it."""
    issue_type: str

    def as_dict(self) -> dict[str, Any]:
        """As clients read it."""
        return asdict(self)


async def stream_issues(conn: AsyncConnection, specialization: str | None) -> AsyncGenerator[DesyncIssue, None]:
    """Every pair that differs now, by user and specialization, through a cursor of the server."""
    query = level.issues(of_one_specialization=specialization is not None)
    values: dict[str, object] = {**(await read_curriculum(conn)).parameters}
    values |= {} if specialization is None else {"specialization": specialization}
    async with conn.stream(query, values) as rows:
        async for row in rows:
            yield issue_of(row)


async def page_of_issues(
    conn: AsyncConnection, specialization: str | None, after: tuple[int, str], limit: int
) -> list[DesyncIssue]:
    """Pairs that differ now, behind `after` (user, specialization): `limit` of them, fewer only at the end.

    It compares window after window of the users until the page is full: neither its memory nor its cost grows with
    what differs in the rest of the tables, or with how far it begins from their start.
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
    """The issue of a row that has a pair's levels, its kind and its user's address."""
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
    """Repair a mismatch upwards: a level that was reached is rather missing on one side than wrong on the other."""
    if kind == DriftKind.MISMATCHED:
        return "sync_progress_to_license" if (progress or 0) > (license_ or 0) else "sync_license_to_progress"
    return _ACTIONS.get(kind, _DECIDE)
