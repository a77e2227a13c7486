"""Pairs of a user, and pairs that differ now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction
from service.admin.audit import check
from service.admin.database import busy_if_unavailable
from service.admin.identity import Identity, Refused
from service.core.names import DriftKind
from service.core.pair import PairDecision, Sides, Why, decide_one, nothing
from service.levels import read_curriculum
from service.sync.issues import DesyncIssue, page_of_issues


async def canonical(conn: AsyncConnection, name: str | None) -> str | None:
    """Return the specialization's name as the database has it, for a name in any case; None stays None.

    Raises:
        Refused: there is no such specialization. The text lists the specializations.
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
"""The pair after which a page begins: user and specialization."""
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
    """`confirmed`: the last complete scan found the same levels, and no event in Kafka explained them."""

    def as_dict(self) -> dict[str, Any]:
        """Return the issue as the API shows it."""
        return self.issue.as_dict() | {"status": self.status}


@dataclass(frozen=True, slots=True)
class IssuePage:
    """A page of issues, and the cursor of the next page; None on the last page."""

    issues: list[SeenIssue]
    next: Cursor | None


async def desync_issues(
    engine: AsyncEngine, who: Identity, specialization: str | None = None, after: Cursor = START, limit: int = 100
) -> IssuePage:
    """Return a page of the pairs that differ now, by user and specialization.

    A pair also differs while its event is not applied yet.

    Raises:
        Forbidden, Busy.
        Refused: there is no such specialization.
    """
    await check(engine, who)
    with busy_if_unavailable():
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
class PairRow:
    """One row of a pair. `more` is the XP of progress, or the highest level that a license has reached."""

    specialization: str
    level: int | None
    more: int | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class UserPair:
    """One pair of a user with both rows, as they are now."""

    specialization: str
    maximum: int | None
    """The specialization's highest level; None where there is no such specialization."""
    progress: PairRow | None
    license: PairRow | None
    others: Sequence[PairRow] = ()
    """Further licenses of the same pair, which differ in case only."""

    @property
    def sides(self) -> Sides:
        """Return both rows as input of the rules of a sync."""
        return Sides(
            self.progress.level if self.progress else None,
            self.license.level if self.license else None,
            progress_exists=self.progress is not None,
            license_exists=self.license is not None,
        )

    def decide(self, direction: Direction) -> PairDecision:
        """Return what a sync in this direction would write now."""
        if self.maximum is None:
            return nothing(Why.UNKNOWN_SPECIALIZATION, f"there is no specialization {self.specialization}")
        return decide_one(self.sides, direction, self.maximum)

    @property
    def state(self) -> str:
        """Return the kind of drift; `in_sync` where both rows agree, `absent` where neither row exists."""
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
    """Return why no direction can repair the pair; '' where one can."""
    if pair.maximum is None:
        return "unknown_specialization"
    if pair.others:
        return "duplicate"
    if pair.license is not None and pair.license.specialization != pair.specialization:
        return "wrong_case"
    return "needs_decision" if pair.decide("highest").why is Why.NEEDS_DECISION else ""
