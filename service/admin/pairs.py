"""Pairs and drift as people ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction
from service.admin.audit import check
from service.admin.database import asked
from service.admin.identity import Identity, Refused
from service.core.names import DriftKind
from service.core.pair import PairDecision, Sides, Why, decide_one, nothing
from service.levels import read_curriculum
from service.sync.issues import DesyncIssue, page_of_issues


async def canonical(conn: AsyncConnection, name: str | None) -> str | None:
    """Return the specialization's own name, whatever the case it was written in; None (all of them) stays None.

    Raises:
        Refused: there is no such specialization; the text names those that there are.
        InstallationFault: no specialization can be used, so nothing can be compared or synced.
    """
    curriculum = await read_curriculum(conn)
    if name is None:
        return None
    found = curriculum.canonical(name)
    if found is None:
        raise Refused(f"There is no specialization {name!r}; there are {', '.join(curriculum.names)}.")
    return found


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


@dataclass(frozen=True, slots=True)
class Row:
    """One side of a pair. `more` is its XP, or the highest level that a license has reached."""

    specialization: str
    level: int | None
    more: int | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class UserPair:
    """Both rows of a specialization, as they are now."""

    specialization: str
    maximum: int | None
    """The specialization's highest level; None where there is no such specialization."""
    progress: Row | None
    license: Row | None
    others: Sequence[Row] = ()
    """Further licenses of the same pair, which differ in case only."""

    @property
    def sides(self) -> Sides:
        """As the rules of a sync have them."""
        return Sides(
            self.progress.level if self.progress else None,
            self.license.level if self.license else None,
            progress_exists=self.progress is not None,
            license_exists=self.license is not None,
        )

    def decide(self, direction: Direction) -> PairDecision:
        """What a sync in this direction would write now."""
        if self.maximum is None:
            return nothing(Why.UNKNOWN_SPECIALIZATION, f"there is no specialization {self.specialization}")
        return decide_one(self.sides, direction, self.maximum)

    @property
    def state(self) -> str:
        """In the words of the reconciler; `in_sync` where all is well, `absent` where there is no row."""
        return _state(self)


def _state(pair: UserPair) -> str:
    if pair.progress is None and pair.license is None:
        return "absent"
    if fault := _fault(pair):
        return fault
    if pair.decide("highest").why is Why.IN_SYNC:
        return "in_sync"
    if pair.license is None:
        return DriftKind.MISSING_LICENSE
    return DriftKind.MISSING_PROGRESS if pair.progress is None else DriftKind.MISMATCHED


def _fault(pair: UserPair) -> str:
    """Why no direction can repair it; '' where one can."""
    if pair.maximum is None:
        return "unknown_specialization"
    if pair.others:
        return "duplicate"
    if pair.license is not None and pair.license.specialization != pair.specialization:
        return "wrong_case"
    return "needs_decision" if pair.decide("highest").why is Why.NEEDS_DECISION else ""
