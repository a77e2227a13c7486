"""Dead letters as they are read, and what their reasons mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MEANINGS = {
    "malformed": "not a JSON object: broken JSON, not UTF-8, or no value at all",
    "invalid": "JSON, but not what the event's schema says",
    "bad_time": "its ce_time cannot be read, or is before 2000 or more than 5 minutes after the record",
    "unknown_type": "no CloudEvents type, an unknown one, or one that belongs on another topic",
    "unknown_specialization": "`specializations` has no such specialization",
    "unknown_user": "`users` has no such user",
    "level_out_of_range": "the level is below 1 or above the specialization's max_levels",
    "refused_by_database": "a constraint or trigger of the application refused the write",
    "too_large": "larger than a consumer holds in memory; only its beginning is kept",
}
"""Each reason in words."""


@dataclass(frozen=True)
class ReasonCount:
    """The open dead letters of one reason: how many, and when the oldest and the newest were first seen."""

    reason: str
    count: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True)
class LetterLine:
    """One dead letter in a list. `value_bytes` is the size of its value; None for a tombstone."""

    id: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    first_seen_at: datetime
    attempts: int
    value_bytes: int | None
    state: str
    """`open`, `replaying` (on its way since less than a minute) or `resolved`."""
    resolution: str | None


@dataclass(frozen=True)
class LetterPage:
    """Some letters, the newest first, and the id before which the next page begins; None where there is none."""

    letters: list[LetterLine]
    next: int | None


@dataclass(frozen=True)
class Letter:
    """One dead letter, whole; `resolved_at` is None while it is open. Timestamps are Kafka's, in ms."""

    id: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    record_timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[dict[str, Any]]
    first_seen_at: datetime
    attempts: int
    resolved_at: datetime | None
    resolution: str | None
    replayed_at: datetime | None
    """Since when a replay is on its way."""
    last_attempt_timestamp: int | None
    """Of the last replayed record that failed."""
    resolved_by: str | None
    """Who asked last for a replay or for the discard."""
    state: str
    """As in `LetterLine`."""

    @property
    def record_time(self) -> datetime | None:
        """The record's time; None where its publisher sent a number that no calendar has."""
        try:
            return datetime.fromtimestamp(self.record_timestamp / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            return None
