"""What differs now, page by page, and whether the last complete scan has confirmed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.audit import check
from service.admin.database import asked
from service.admin.identity import Identity
from service.admin.specializations import canonical
from service.sync.issues import DesyncIssue, page_of_issues

Cursor = tuple[int, str]
"""The pair behind which a page begins."""
START: Cursor = (-(2**63), "")
_CONFIRMED = text("""
    SELECT d.user_id, d.specialization, d.progress_level, d.license_level
      FROM levelsync.drift d
      JOIN unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[])) AS k (user_id, specialization)
        ON d.user_id = k.user_id AND d.specialization = k.specialization
""")


@dataclass(frozen=True, slots=True)
class SeenIssue:
    """A pair that differs now."""

    issue: DesyncIssue
    status: Literal["suspected", "confirmed"]
    """`confirmed`: the last complete scan found it with the very same levels, and no event in flight explained it."""

    def as_dict(self) -> dict[str, Any]:
        """As clients read it."""
        return self.issue.as_dict() | {"status": self.status}


@dataclass(frozen=True, slots=True)
class IssuePage:
    """Some of them, and where the next page begins; None where there is none."""

    issues: list[SeenIssue]
    next: Cursor | None


async def desync_issues(
    engine: AsyncEngine, who: Identity, specialization: str | None = None, after: Cursor = START, limit: int = 100
) -> IssuePage:
    """A page of what differs now, by user and specialization. What is on its way in Kafka differs too.

    Raises:
        Forbidden, Busy.
        Refused: there is no such specialization.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            name = await canonical(conn, specialization)
            found = await page_of_issues(conn, name, after, limit + 1)
            page = found[:limit]
            confirmed = await _confirmed(conn, page)
    issues = [SeenIssue(issue, "confirmed" if _levels(issue) in confirmed else "suspected") for issue in page]
    last = page[-1] if len(found) > limit else None
    return IssuePage(issues, None if last is None else (last.user_id, last.specialization))


async def _confirmed(conn: AsyncConnection, page: Sequence[DesyncIssue]) -> set[tuple[Any, ...]]:
    if not page:
        return set()
    values = {
        "users": [issue.user_id for issue in page],
        "specializations": [issue.specialization for issue in page],
    }
    return {tuple(row) for row in await conn.execute(_CONFIRMED, values)}


def _levels(issue: DesyncIssue) -> tuple[Any, ...]:
    return issue.user_id, issue.specialization, issue.progress_level, issue.license_level
