"""The decision of a sync or heal about one pair, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from events import Direction

Side = Literal["progress", "license"]


class PairAction(StrEnum):
    """The effect of a decision on the side that it does not believe."""

    NONE = "none"
    CREATED = "created"
    UPDATED = "updated"


class Why(StrEnum):
    """The reasons why a decision writes nothing."""

    IN_SYNC = "in_sync"
    NO_SOURCE = "no_source_row"
    """Neither row exists, or the row that the sync was asked to believe does not exist."""
    NEEDS_DECISION = "needs_decision"
    """A level is NULL or out of range, so that a person has to name the level (law 8)."""
    UNKNOWN_SPECIALIZATION = "unknown_specialization"
    NO_MAXIMUM = "no_maximum"
    """The highest level of the specialization is not known. This is a fault of the installation."""
    CHANGED_MEANWHILE = "changed_meanwhile"
    """The levels changed after the write was decided (law 6)."""
    NOT_HEALED = "not_healed"
    """A run did not heal the pair."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The two rows of a pair: whether they exist, and their levels. A level is None without a row or if it is NULL."""

    progress_level: int | None
    license_level: int | None
    progress_exists: bool
    license_exists: bool

    def exists(self, side: Side) -> bool:
        """Return whether the row of this side exists."""
        return self.progress_exists if side == "progress" else self.license_exists

    def level(self, side: Side) -> int | None:
        """Return the level of this side."""
        return self.progress_level if side == "progress" else self.license_level


@dataclass(frozen=True, slots=True)
class PairDecision:
    """The write that ends a pair's drift, or the reason for no write (`why`, and `detail` as text)."""

    action: PairAction
    target: Side | None = None
    old: int | None = None
    new: int | None = None
    why: Why | None = None
    detail: str = ""
    declared: bool = False
    """Whether a sync of this pair named the side to believe, and that row exists."""

    @property
    def lowers(self) -> bool:
        """Whether the write lowers a level."""
        return self.old is not None and self.new is not None and self.new < self.old

    @property
    def fences(self) -> bool:
        """Whether events from before the decision must not raise the pair again (law 2)."""
        return self.lowers or self.declared


def nothing(why: Why, detail: str) -> PairDecision:
    """Return the decision to write nothing."""
    return PairDecision(PairAction.NONE, why=why, detail=detail)


def decide_pair(sides: Sides, direction: Direction, maximum: int) -> PairDecision:
    """Decide which side to believe and what to write to the other one. The write may lower a level.

    A missing row is created from the other one, whatever the direction. `highest` believes the higher level, so it
    never lowers one. Where a level is NULL or outside 1 to `maximum`, the highest level of the specialization, the
    decision is to write nothing: a level is never clamped.
    """
    if not sides.progress_exists and not sides.license_exists:
        return nothing(Why.NO_SOURCE, "the pair has neither a progress row nor a license")
    if fault := undecidable(sides, maximum):
        return nothing(Why.NEEDS_DECISION, fault)
    source = _source(sides, direction)
    target: Side = "license" if source == "progress" else "progress"
    old, new = sides.level(target), sides.level(source)
    if old == new:
        return nothing(Why.IN_SYNC, "Already in sync")
    return PairDecision(PairAction.UPDATED if sides.exists(target) else PairAction.CREATED, target, old, new)


def decide_one(sides: Sides, direction: Direction, maximum: int) -> PairDecision:
    """Decide a pair that a person named: like `decide_pair`, but the row to believe must exist.

    The decision is `declared` also where the other row agrees or rises. The caller may have lowered the believed row
    while an earlier event is still in flight, and the fence of a declared decision supersedes that event.
    """
    source = _BELIEVED.get(direction)
    if source is None:
        return decide_pair(sides, direction, maximum)
    if not sides.exists(source):
        return nothing(Why.NO_SOURCE, f"there is no {source} row to sync from")
    decision = decide_pair(sides, direction, maximum)
    return replace(decision, declared=decision.why in {None, Why.IN_SYNC})


def undecidable(sides: Sides, maximum: int) -> str:
    """Return a sentence about the levels that no direction can repair, with the allowed range; '' if there are none."""
    faults = [fault for side in _SIDES if (fault := _fault(side, sides, maximum))]
    if not faults:
        return ""
    others = [f"{side} level {sides.level(side)}" for side in _SIDES if _sound(side, sides, maximum)]
    return f"{' and '.join(faults)}{''.join(f'; {other}' for other in others)}: somebody has to decide the level"


_SIDES: tuple[Side, Side] = ("progress", "license")
_BELIEVED: dict[Direction, Side] = {"progress_to_license": "progress", "license_to_progress": "license"}
"""The side that a direction names. `highest` names none."""


def _fault(side: Side, sides: Sides, maximum: int) -> str:
    level = sides.level(side)
    if not sides.exists(side):
        return ""
    if level is None:
        return f"the {side} level is NULL, not 1 to {maximum}"
    return "" if 1 <= level <= maximum else f"{side} level {level} is outside 1 to {maximum}"


def _sound(side: Side, sides: Sides, maximum: int) -> bool:
    return sides.exists(side) and not _fault(side, sides, maximum)


def _source(sides: Sides, direction: Direction) -> Side:
    if not sides.license_exists:
        return "progress"
    if not sides.progress_exists:
        return "license"
    if direction == "highest":
        return "progress" if (sides.progress_level or 0) >= (sides.license_level or 0) else "license"
    return "progress" if direction == "progress_to_license" else "license"
