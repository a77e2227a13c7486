"""Events as they are read, dead letters, and the outcomes of events."""

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
    """The beginning of a value that is larger than the limit. `about` describes the whole value."""

    about: str

    def __new__(cls, beginning: bytes, about: str) -> Cut:
        """Create a `Cut` with its description."""
        cut = super().__new__(cls, beginning)
        cut.about = about
        return cut


class Outcome(StrEnum):
    """The outcome of one event (label of ``levelsync_events_total``)."""

    APPLIED = "applied"
    CREATED = "created"
    EQUAL = "equal"
    AHEAD = "ahead"
    SUPERSEDED = "superseded"
    DEAD_LETTERED = "dead_lettered"


class LevelEvent(msgspec.Struct, gc=False):  # created for every record; a dataclass takes four times as long
    """An event that was read: its user, specialization, level and times, and its index in the batch."""

    index: int
    user_id: int
    specialization: str
    to_level: int
    occurred_us: int
    """When the event occurred, in microseconds since 1970. The application's tables get this time."""
    decided_us: int
    """The time to compare with decisions: the smaller of `occurred_us` and the record's timestamp (law 2)."""
    origin: str
    """Type, source and id of the event: the reason in its history row."""
    letter: int = 0
    """The id of the dead letter that the record claims to replay, or 0."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can never be applied, and the reason."""

    index: int
    reason: Reason
    detail: str
