"""What an event did to its target: the words of the semantics as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from events import Reason

Pair = tuple[int, str]
"""A user's id and the specialization as `specializations` writes it."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    """Return an aware time as microseconds since 1970."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class Cut(bytes):
    """The beginning of a value that is too large to be held; `about` says what the whole one is."""

    about: str

    def __new__(cls, beginning: bytes, about: str) -> Cut:
        """Make one."""
        made = super().__new__(cls, beginning)
        made.about = about
        return made


class Outcome(StrEnum):
    """The outcome of one event (label of ``levelsync_events_total``)."""

    APPLIED = "applied"
    CREATED = "created"
    EQUAL = "equal"
    AHEAD = "ahead"
    SUPERSEDED = "superseded"
    DEAD_LETTERED = "dead_lettered"


class LevelEvent(msgspec.Struct, gc=False):  # one for every record: a dataclass would take four times as long
    """One event, read: who, where to, when, and where it stands in its batch."""

    index: int
    user_id: int
    specialization: str
    to_level: int
    occurred_us: int
    """When it happened, as the application's tables get to see it, in microseconds since 1970."""
    decided_us: int
    """Its time for comparisons with a decision: the smaller of `occurred_us` and the record's timestamp (law 2)."""
    origin: str
    """Type, source and id: the reason of the history row it may leave."""
    letter: int = 0
    """The dead letter that the record claims to replay; 0 for none."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can never apply, and why."""

    index: int
    reason: Reason
    detail: str
