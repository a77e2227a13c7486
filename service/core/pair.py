"""What a sync or heal does to one pair. Pure, so that the rules can be tested on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from events import Direction

Side = Literal["progress", "license"]


class Action(StrEnum):
    """What is done to the side that is not believed."""

    NONE = "none"
    CREATED = "created"
    UPDATED = "updated"


class Why(StrEnum):
    """Why nothing is done."""

    IN_SYNC = "in_sync"
    NO_SOURCE = "no_source_row"
    """Neither row is there, or not the one that a sync of this pair was asked to believe."""
    NEEDS_DECISION = "needs_decision"
    """A level is NULL or out of range: only somebody who names a level can say what is right (law 8)."""
    UNKNOWN_SPECIALIZATION = "unknown_specialization"
    NO_MAXIMUM = "no_maximum"
    """Its highest level is not known: somebody has to repair the installation."""
    CHANGED_MEANWHILE = "changed_meanwhile"
    """The levels are not those for which the write was meant (law 6)."""
    NOT_HEALED = "not_healed"
    """A run left it as it was."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The two rows of a pair: whether they are there, and their levels (None: no row, or NULL in it)."""

    progress_level: int | None
    license_level: int | None
    progress_exists: bool
    license_exists: bool

    def exists(self, side: Side) -> bool:
        """Whether the row is there."""
        return self.progress_exists if side == "progress" else self.license_exists

    def level(self, side: Side) -> int | None:
        """Its level."""
        return self.progress_level if side == "progress" else self.license_level


@dataclass(frozen=True, slots=True)
class PairDecision:
    """The write that ends a pair's drift, or why there is none (`why`, and in words `detail`)."""

    action: Action
    target: Side | None = None
    old: int | None = None
    new: int | None = None
    why: Why | None = None
    detail: str = ""
    declared: bool = False
    """Whether somebody asked for this pair in a direction that names the side to believe, and it was there."""

    @property
    def lowers(self) -> bool:
        """Whether a level falls."""
        return self.old is not None and self.new is not None and self.new < self.old

    @property
    def fences(self) -> bool:
        """Whether events from before the decision must not raise the pair again (law 2)."""
        return self.lowers or self.declared


def nothing(why: Why, detail: str) -> PairDecision:
    """Leave the pair as it is."""
    return PairDecision(Action.NONE, why=why, detail=detail)


def decide_pair(sides: Sides, direction: Direction, maximum: int) -> PairDecision:
    """Believe one side and give the other its level, also downwards; `maximum` is the specialization's highest level.

    A missing row is made from the other one, whatever the direction. `highest` believes the higher level, so it never
    lowers one. A level that is NULL or outside 1 to `maximum`, on either side, is left as it is: never a clamp.
    """
    if not sides.progress_exists and not sides.license_exists:
        return nothing(Why.NO_SOURCE, "there is neither a progress row nor a license")
    if fault := undecidable(sides, maximum):
        return nothing(Why.NEEDS_DECISION, fault)
    source = _source(sides, direction)
    target: Side = "license" if source == "progress" else "progress"
    old, new = sides.level(target), sides.level(source)
    if old == new:
        return nothing(Why.IN_SYNC, "Already in sync")
    return PairDecision(Action.UPDATED if sides.exists(target) else Action.CREATED, target, old, new)


def decide_one(sides: Sides, direction: Direction, maximum: int) -> PairDecision:
    """Decide a pair that somebody asked for by name: as `decide_pair`, but the row to believe has to be there.

    It is declared to be right as it is now, also where the other row agrees or rises: the caller may have lowered it
    while an event from before is still on its way.
    """
    source = _BELIEVED.get(direction)
    if source is None:
        return decide_pair(sides, direction, maximum)
    if not sides.exists(source):
        return nothing(Why.NO_SOURCE, f"there is no {source} row to sync from")
    decision = decide_pair(sides, direction, maximum)
    return replace(decision, declared=decision.why in {None, Why.IN_SYNC})


def undecidable(sides: Sides, maximum: int) -> str:
    """Say which levels no direction can repair, and what the levels may be; '' where there is none."""
    faults = [fault for side in _SIDES if (fault := _fault(side, sides, maximum))]
    if not faults:
        return ""
    others = [f"{side} level {sides.level(side)}" for side in _SIDES if _sound(side, sides, maximum)]
    return f"{' and '.join(faults)}{''.join(f'; {other}' for other in others)}: somebody has to decide the level"


_SIDES: tuple[Side, Side] = ("progress", "license")
_BELIEVED: dict[Direction, Side] = {"progress_to_license": "progress", "license_to_progress": "license"}
"""The side that a direction names; `highest` names none."""


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
