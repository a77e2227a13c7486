"""Decode the bytes of records into events or dead letters, with a fast path for records of the usual form.

The fast path accepts a subset of what `events.read` accepts, with an equal result. A property test compares the two.
A record that the fast path does not accept is read by `events.read`, which alone decides whether and why it is bad.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import msgspec

from events import ContractViolation, LicenseAdvanced, ProgressLeveledUp, Reason, read
from events.attributes import occurred_at
from events.base import INT4_MAX, INT8_MAX
from service.core.outcomes import Cut, DeadLetter, LevelEvent, microseconds

_TIMESTAMP_DIGITS = 15
_ID_DIGITS = 18
_HISTORY_NAMES: dict[type, str] = {ProgressLeveledUp: "ProgressLeveledUp", LicenseAdvanced: "LicenseAdvanced"}


def decode(records: Sequence[RawRecord]) -> list[LevelEvent | DeadLetter]:
    """Return an event or a dead letter for every record of a batch, in order."""
    return [read_quickly(index, record) or decode_one(index, record) for index, record in enumerate(records)]


def decode_one(index: int, record: RawRecord) -> LevelEvent | DeadLetter:
    """Read any record by the contract. Return a dead letter for a bad one."""
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


def claimed_letter(record: RawRecord) -> int:
    """Return the id of the dead letter that a record claims to replay, or 0."""
    for name, value in record.headers:
        if name == LETTER_HEADER:
            return int(value) if value is not None and value.isdigit() and len(value) <= _ID_DIGITS else 0
    return 0


def first_timestamp(record: RawRecord) -> int:
    """Return the record's timestamp in milliseconds. For a replayed dead letter, return the first record's if older."""
    for name, value in record.headers:
        if name == FIRST_TIMESTAMP_HEADER:
            return _earlier_timestamp(record.timestamp, value)
    return record.timestamp


def _earlier_timestamp(timestamp: int, header: bytes | None) -> int:
    """Return the smaller of the timestamp and the header's time. Ignore a header that is not a time (law 4).

    Zero does not count as a time. It would disable the comparison of the event's own time with the record's, so that
    the event could pass every fence.
    """
    if header is None or len(header) > _TIMESTAMP_DIGITS or not header.isdigit():
        return timestamp
    return min(timestamp, int(header) or timestamp)


FIRST_TIMESTAMP_HEADER = "levelsync-first-timestamp"
"""The header of a replayed dead letter with the timestamp of its first record, in milliseconds (law 2)."""
LETTER_HEADER = "levelsync-dead-letter"
"""The header of a replayed dead letter with its id."""

_Id = Annotated[int, msgspec.Meta(ge=1, le=INT8_MAX)]
_Level = Annotated[int, msgspec.Meta(ge=1, le=INT4_MAX)]
_LevelBefore = Annotated[int, msgspec.Meta(ge=0, le=INT4_MAX)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
_Text = Annotated[str, msgspec.Meta(max_length=10_000)]

_AHEAD = 5 * 60 * 1_000_000
_JSON = b"application/json"
_LONGEST_ATTRIBUTE = 255
_FRACTION_DIGITS = 6
_KEPT_MINUTES = 1000
_TIMESTAMP_END = 253_402_300_800_000_000
"""The year 10000, in microseconds."""
_TIME = re.compile(rb"(.{17})([0-5][0-9])(?:\.([0-9]{1,6}))?(?:Z|\+00:00)")
"""A time in UTC. Its groups are the minute, such as ``2026-01-31T12:00:``, the second and the fraction.
`events.attributes` checks the minute.
"""
_REPLAY_HEADERS = frozenset({FIRST_TIMESTAMP_HEADER, LETTER_HEADER})
_minutes: dict[bytes, int] = {}
"""Minutes that the contract accepted before, in microseconds since 1970."""


class _LeveledUp(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_id: _Id
    specialization: _Name
    to_level: _Level
    from_level: _LevelBefore | None = None


class _Advanced(_LeveledUp, forbid_unknown_fields=True, gc=False):
    advanced_by: _Id | None = None
    reason: _Text | None = None
    requirements_met: _Text | None = None


class RawRecord(Protocol):
    """The attributes of a Kafka record that decoding needs. aiokafka's ConsumerRecord has them."""

    topic: str
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


_TOPICS: dict[str, tuple[bytes, Any, bytes]] = {
    event.TOPIC: (event.TYPE.encode(), msgspec.json.Decoder(data).decode, event.__name__.encode())
    for event, data in ((ProgressLeveledUp, _LeveledUp), (LicenseAdvanced, _Advanced))
}
"""For each topic: its CloudEvents type, the decoder of its data, and the event's name in the history."""


def read_quickly(index: int, record: RawRecord) -> LevelEvent | None:  # noqa: PLR0911 - each return is one check
    """Read a good record in CloudEvents' binary mode. Return None for every other record."""
    found, value, kind = dict(record.headers), record.value, _TOPICS.get(record.topic)
    if (
        kind is None
        or type(value) is not bytes
        or len(found) != len(record.headers)
        or not _REPLAY_HEADERS.isdisjoint(found)
    ):
        return None
    type_, decode, name = kind
    source, event_id, time = found.get("ce_source"), found.get("ce_id"), found.get("ce_time")
    attributes = found.get("ce_type"), found.get("ce_specversion"), found.get("content-type", _JSON)
    if attributes != (type_, b"1.0", _JSON) or not source or not event_id or not time:
        return None
    origin, occurred, written = b" ".join((name, source, event_id)), _microseconds(time), record.timestamp * 1000
    if len(source) > _LONGEST_ATTRIBUTE or len(event_id) > _LONGEST_ATTRIBUTE or b"\0" in origin:
        return None
    if occurred is None or not 0 < written < _TIMESTAMP_END or occurred - _AHEAD > written or b"\\u0000" in value:
        return None
    if not value.isascii() or not origin.isascii():
        return None
    try:
        data = decode(value)
    except msgspec.MsgspecError:
        return None
    if data.from_level is not None and data.from_level >= data.to_level:
        return None
    decided, reason = min(occurred, written), origin.decode()
    return LevelEvent(index, data.user_id, data.specialization, data.to_level, occurred, decided, reason)


def _microseconds(raw: bytes) -> int | None:
    """Read a time in UTC with at most six fractional digits, as microseconds since 1970. Return None for any other."""
    match = _TIME.fullmatch(raw)
    if match is None:
        return None
    minute, second, fraction = match.groups(b"")
    start = _minutes.get(minute)
    if start is None:
        try:
            start = int(occurred_at(minute + b"00Z", 0).timestamp()) * 1_000_000
        except ContractViolation:
            return None
        if len(_minutes) >= _KEPT_MINUTES:
            _minutes.clear()
        _minutes[minute] = start
    return start + int(second + fraction.ljust(_FRACTION_DIGITS, b"0"))
