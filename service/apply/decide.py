"""What a batch of events does to its target rows. Pure, so that the laws can be tested on it.

The events of one pair are walked in the order of their partition: the history is then the same however the events
were batched (law 1).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from events import Reason
from service.apply.outcomes import DeadLetter, LevelEvent, Outcome, Pair


@dataclass(slots=True)  # not frozen, as `LevelEvent`
class TargetRow:
    """A row as it was found under its lock. A NULL level counts as 0 for an event; a sync tells them apart."""

    row_id: int
    level: int | None


@dataclass(slots=True)
class Change:
    """The final state of one pair's row after the batch: `row_id` is None where it is to be made."""

    pair: Pair
    row_id: int | None
    level: int
    created_at: datetime
    """When the event that made the row occurred (only read for a new row)."""
    advanced_at: datetime
    """When the last event that raised it occurred."""


@dataclass(slots=True)  # not frozen, as `LevelEvent`
class Rise:
    """One step of the history: from the level before the event to its own, at its time, with its origin."""

    pair: Pair
    from_level: int
    to_level: int
    occurred_at: datetime
    origin: str


@dataclass(slots=True)
class Decision:
    """What is to be written, and what became of each event (by its index in the batch)."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    changes: dict[Pair, Change] = field(default_factory=dict)
    rises: list[Rise] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Found:
    """What the database says, read under the locks: target rows, fences, and which of the asked-for users exist."""

    rows: Mapping[Pair, TargetRow]
    fences: Mapping[Pair, datetime]
    users: Collection[int]


def decide(events: Sequence[LevelEvent], found: Found) -> Decision:
    """``level := greatest(level, to_level)``, unless a later decision stands (laws 1 and 2)."""
    decision = Decision()
    for event in events:
        _decide_one(event, (event.user_id, event.specialization), found, decision)
    return decision


def _decide_one(event: LevelEvent, pair: Pair, found: Found, decision: Decision) -> None:
    fence = found.fences.get(pair)
    if fence is not None and event.decided_at <= fence:
        decision.outcomes[event.index] = Outcome.SUPERSEDED
        return
    change, row = decision.changes.get(pair), found.rows.get(pair)
    if change is None and row is None and event.user_id not in found.users:
        decision.letters.append(DeadLetter(event.index, Reason.UNKNOWN_USER, f"there is no user {event.user_id}"))
        return
    exists = change is not None or row is not None
    level = change.level if change else (row.level or 0) if row else 0
    if event.to_level <= level:
        decision.outcomes[event.index] = Outcome.EQUAL if event.to_level == level else Outcome.AHEAD
        return
    decision.outcomes[event.index] = Outcome.APPLIED if exists else Outcome.CREATED
    decision.rises.append(Rise(pair, level, event.to_level, event.occurred_at, event.origin))
    _raise(decision, pair, event, change, row)


def _raise(decision: Decision, pair: Pair, event: LevelEvent, change: Change | None, row: TargetRow | None) -> None:
    if change is None:
        row_id = row.row_id if row else None
        decision.changes[pair] = Change(pair, row_id, event.to_level, event.occurred_at, event.occurred_at)
    else:
        change.level, change.advanced_at = event.to_level, event.occurred_at
