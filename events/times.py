"""When an event occurred: `ce_time`, held against the record's own timestamp."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from events.attributes import EARLIEST
from events.reasons import ContractViolation, Reason

_AHEAD = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP_END = 253_402_300_800_000
"""Milliseconds: the year 10000. Kafka has -1 for no timestamp."""
# The grammar of RFC 3339; `datetime.fromisoformat` alone takes far more. A leap second is part of it.
_RFC3339 = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:)([0-5][0-9]|60)(?:\.([0-9]+))?"
    rb"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def occurred_at(ce_time: bytes | None, timestamp_ms: int) -> datetime:
    """When the event says it occurred, in UTC.

    Raises:
        ContractViolation: `bad_time`: unreadable, before 2000, or over 5 minutes ahead of a usable timestamp.
    """
    match = None if ce_time is None else _RFC3339.fullmatch(ce_time)
    if match is None:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is not an RFC 3339 time with an offset")
    second, text = int(match[2] == b"60"), match[0].decode().upper()  # Python has no 60th second: it is one after 59
    try:
        at = datetime.fromisoformat(text.replace(":60", ":59", second)).astimezone(UTC) + timedelta(seconds=second)
    except (ValueError, OverflowError):  # the 30th of February, or a year outside 1 to 9999 in UTC
        raise ContractViolation(Reason.BAD_TIME, "ce_time is not a date of the calendar") from None
    if at < EARLIEST:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is before the year 2000")
    usable = 0 < timestamp_ms < _TIMESTAMP_END
    if usable and at - _AHEAD > _EPOCH + timedelta(milliseconds=timestamp_ms):
        raise ContractViolation(Reason.BAD_TIME, "ce_time is more than 5 minutes ahead of the record's timestamp")
    return at


def recorded_at(timestamp_ms: int) -> datetime:
    """The record's own timestamp, for an event without a time.

    Raises:
        ContractViolation: `bad_time`: the timestamp is not usable.
    """
    if not 0 < timestamp_ms < _TIMESTAMP_END:
        raise ContractViolation(Reason.BAD_TIME, "there is no ce_time, and the record's timestamp is not usable")
    return _EPOCH + timedelta(milliseconds=timestamp_ms)
