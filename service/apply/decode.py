"""Raw record → event or dead letter. Pure: it knows no I/O library (held by import-linter)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from events import ContractViolation, LicenseAdvanced, ProgressLeveledUp, Reason, read
from service.apply.outcomes import Cut, DeadLetter, LevelEvent, microseconds
from service.apply.quick import FIRST_TIMESTAMP_HEADER, LETTER_HEADER, Record, read_quickly

_TIMESTAMP_DIGITS = 15
_ID_DIGITS = 18
_HISTORY_NAMES: dict[type, str] = {ProgressLeveledUp: "ProgressLeveledUp", LicenseAdvanced: "LicenseAdvanced"}


def decode(records: Sequence[Record]) -> list[LevelEvent | DeadLetter]:
    """Read every record of a batch, in order; a bad one becomes a dead letter and its neighbours go on."""
    return [read_quickly(index, record) or decode_one(index, record) for index, record in enumerate(records)]


def decode_one(index: int, record: Record) -> LevelEvent | DeadLetter:
    """Read any record, as the contract has it; a bad one becomes a dead letter."""
    timestamp = first_timestamp(record)
    if isinstance(record.value, Cut):
        return DeadLetter(index, Reason.TOO_LARGE, record.value.about)
    try:
        received = read(record.topic, record.value, record.headers, timestamp)
    except ContractViolation as violation:
        return DeadLetter(index, violation.reason, violation.detail)
    event: Any = received.event
    name = _HISTORY_NAMES.get(type(event))
    if name is None:
        return DeadLetter(index, Reason.UNKNOWN_TYPE, f"{type(event).__name__} raises no level")
    occurred_us = microseconds(received.occurred_at)
    return LevelEvent(
        index,
        event.user_id,
        event.specialization,
        event.to_level,
        occurred_us,
        occurred_us if timestamp <= 0 else min(occurred_us, timestamp * 1000),
        f"{name} {received.source} {received.id}",
        claimed_letter(record),
    )


def claimed_letter(record: Record) -> int:
    """Return the id of the dead letter that a record claims to replay; 0 for none."""
    for name, value in record.headers:
        if name == LETTER_HEADER:
            return int(value) if value is not None and value.isdigit() and len(value) <= _ID_DIGITS else 0
    return 0


def first_timestamp(record: Record) -> int:
    """The record's timestamp in milliseconds; for a replayed dead letter its first record's, where that is older."""
    for name, value in record.headers:
        if name == FIRST_TIMESTAMP_HEADER:
            return _smaller(record.timestamp, value)
    return record.timestamp


def _smaller(timestamp: int, header: bytes | None) -> int:
    """A header that is no time is ignored, as all foreign headers are (law 4).

    Zero is none: it would switch off what holds an event's own time against the record's, and so pass every fence.
    """
    if header is None or len(header) > _TIMESTAMP_DIGITS or not header.isdigit():
        return timestamp
    return min(timestamp, int(header) or timestamp)
