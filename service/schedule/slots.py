"""Time cut into slots, the same for every process; pure."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMESPACE = uuid.UUID("2d4f3f5c-9c3e-4a39-8d2b-3a0c1b5b8d21")


def slot_at(now: datetime, every: timedelta) -> datetime:
    """When the slot began that `now` is in.

    Slots are counted from 1970 in UTC: with 6 hours they begin at 0, 6, 12 and 18 o'clock.
    """
    return _EPOCH + (now - _EPOCH) // every * every


def seconds_to_next(now: datetime, every: timedelta) -> float:
    """How long the slot goes on; never 0."""
    return (slot_at(now, every) + every - now).total_seconds()


def run_id(slot: datetime) -> uuid.UUID:
    """The id of a slot's run.

    It knows the slot's beginning only: processes with different lengths of a slot, as while a new setting is rolled
    out, agree on the run at an hour that begins a slot of both.
    """
    return uuid.uuid5(_NAMESPACE, slot.astimezone(UTC).isoformat(timespec="microseconds"))
