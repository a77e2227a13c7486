"""Both rows of a pair as a person looks at them, and what a sync would make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from events import Direction
from service.sync.pair import PairDecision, Sides, Why, decide_one, nothing


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
    return "missing_license" if pair.license is None else "missing_progress" if pair.progress is None else "mismatched"


def _fault(pair: UserPair) -> str:
    """Why no direction can repair it; '' where one can."""
    if pair.maximum is None:
        return "unknown_specialization"
    if pair.others:
        return "duplicate"
    if pair.license is not None and pair.license.specialization != pair.specialization:
        return "wrong_case"
    return "needs_decision" if pair.decide("highest").why is Why.NEEDS_DECISION else ""
