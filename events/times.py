"""When an event occurred: `ce_time`, held against the record's own timestamp."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from events.reasons import ContractViolation, Reason

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
AHEAD_SECONDS = 5 * 60
"""How far a publisher's clock may be ahead of the broker's."""
_LATEST_MS = datetime(9999, 1, 1, tzinfo=UTC).timestamp() * 1000
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def occurred_at(ce_time: str | None, timestamp_ms: int) -> datetime:
    """`ce_time`, or the record's timestamp where that is missing.

    Raises:
        ContractViolation: bad_time.
    """
    usable = 0 < timestamp_ms < _LATEST_MS
    if ce_time is None:
        if not usable:
            raise ContractViolation(Reason.BAD_TIME, f"no ce_time, and the record's timestamp {timestamp_ms} is no time")
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    time = _parse(ce_time)
    seconds = time.timestamp()
    if seconds < EARLIEST:
        raise ContractViolation(Reason.BAD_TIME, f"ce_time {ce_time} is before 2000")
    if usable and seconds > timestamp_ms / 1000 + AHEAD_SECONDS:
        raise ContractViolation(Reason.BAD_TIME, f"ce_time {ce_time} is more than 5 minutes ahead of the record")
    return time


def _parse(ce_time: str) -> datetime:
    if not _RFC3339.fullmatch(ce_time):
        raise ContractViolation(Reason.BAD_TIME, f"ce_time {ce_time[:60]!r} is no RFC 3339 time with an offset")
    try:
        return datetime.fromisoformat(ce_time.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ContractViolation(Reason.BAD_TIME, f"ce_time {ce_time[:60]!r} is no time") from None
