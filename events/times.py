"""The time when an event occurred: `ce_time`, checked against the record's timestamp."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from events.attributes import EARLIEST
from events.reasons import ContractViolation, Reason

_AHEAD = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP_END = 253_402_300_800_000
"""The year 10000, in milliseconds. Kafka uses -1 for a record without a timestamp."""
# The grammar of RFC 3339, with leap seconds. `datetime.fromisoformat` alone accepts many other forms.
_RFC3339 = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:)([0-5][0-9]|60)(?:\.([0-9]+))?"
    rb"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def occurred_at(ce_time: bytes | None, timestamp_ms: int) -> datetime:
    """Return the time in `ce_time`, in UTC.

    Raises:
        ContractViolation: `bad_time`. The time cannot be read, is before 2000, or is more than 5 minutes ahead of the
            record's timestamp, where that is usable.
    """
    match = None if ce_time is None else _RFC3339.fullmatch(ce_time)
    if match is None:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is not an RFC 3339 time with an offset")
    # Python cannot represent second 60, so it becomes second 59 plus one.
    second, text = int(match[2] == b"60"), match[0].decode().upper()
    try:
        at = datetime.fromisoformat(text.replace(":60", ":59", second)).astimezone(UTC) + timedelta(seconds=second)
    except (ValueError, OverflowError):  # such as 30 February, or a year outside 1 to 9999 in UTC
        raise ContractViolation(Reason.BAD_TIME, "ce_time is not a valid date") from None
    if at < EARLIEST:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is before the year 2000")
    usable = 0 < timestamp_ms < _TIMESTAMP_END
    if usable and at - _AHEAD > _EPOCH + timedelta(milliseconds=timestamp_ms):
        raise ContractViolation(Reason.BAD_TIME, "ce_time is more than 5 minutes ahead of the record's timestamp")
    return at


def recorded_at(timestamp_ms: int) -> datetime:
    """Return the record's timestamp as a time in UTC, for an event without a time.

    Raises:
        ContractViolation: `bad_time`. The timestamp is not usable.
    """
    if not 0 < timestamp_ms < _TIMESTAMP_END:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is missing, and the record's timestamp is not usable")
    return _EPOCH + timedelta(milliseconds=timestamp_ms)
