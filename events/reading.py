"""Read events from Kafka records and lines of JSON, or find the reason why they cannot be read.

`read` is called for many records, so a good record needs one pass over its headers and one over its value.
The order in which the reasons are checked is part of the contract (docs/contract.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from time import time_ns
from typing import Final, NamedTuple

from pydantic import ValidationError

from events.attributes import LONGEST, Attributes, occurred_at, open_envelope, parse, recorded_at
from events.base import Event
from events.levels import LevelSynced, LicenseAdvanced, ProgressLeveledUp
from events.reasons import ContractViolation, Reason, explain
from events.reconcile import ReconcileChunk, ReconcileCompleted, ReconcileRequested
from events.writing import SPEC_VERSION, STRUCTURED_TYPE

MODELS: tuple[type[Event], ...] = (
    ProgressLeveledUp,
    LicenseAdvanced,
    ReconcileRequested,
    ReconcileChunk,
    ReconcileCompleted,
    LevelSynced,
)
"""Every event of the contract."""
BY_TYPE = {model.TYPE: model for model in MODELS}


def read_line(line: str | bytes) -> Event:
    """Return the event of one line in structured mode. An event without a time gets the current time.

    Raises:
        ContractViolation: The line breaks the contract. The text names the field and what is wrong with it.
    """
    # A lone surrogate becomes bytes that are not UTF-8, so that the parser refuses it as `malformed`.
    value = line.encode(errors="surrogatepass") if isinstance(line, str) else line
    return read_envelope(None, value, time_ns() // 1_000_000).event


_BY_TYPE_HEADER: Final[dict[bytes | None, type[Event]]] = {name.encode(): event for name, event in BY_TYPE.items()}
_ATTRIBUTES = frozenset({"ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time"})
_SPEC_VERSION = SPEC_VERSION.encode()
_STRUCTURED = STRUCTURED_TYPE.encode()
_NEEDED_HEADER = (
    f"ce_type is missing; the value is a structured CloudEvent, which needs the header content-type: {STRUCTURED_TYPE}"
)


class Received(NamedTuple):
    """An event as it was received. `occurred_at` is its time in UTC, or the record's timestamp if it has no time."""

    event: Event
    id: str
    source: str
    occurred_at: datetime


def read(topic: str, value: bytes | None, headers: Sequence[tuple[str, bytes | None]], timestamp_ms: int) -> Received:
    """Return the event of one record.

    Raises:
        ContractViolation: The record breaks the contract. No other exception is raised, whatever the record contains.
    """
    if value is None:
        raise ContractViolation(Reason.MALFORMED, "the value is null (a tombstone)")
    found = dict(headers)
    repeated = None if len(found) == len(headers) else _repeated(headers)
    content_type = found.get("content-type")
    if content_type is not None and _is_structured(content_type):
        return read_envelope(topic, value, timestamp_ms)
    return _read_parts(topic, value, found, repeated, timestamp_ms)


def read_envelope(topic: str | None, value: bytes, timestamp_ms: int) -> Received:
    """Return the event of a value in structured mode. With None as topic, any type of the contract is accepted.

    Raises:
        ContractViolation: The value breaks the contract.
    """
    found, data = open_envelope(value)
    return _read_parts(topic, data, found, None, timestamp_ms)


def _repeated(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """Return the first attribute that occurs more than once. Other headers may be repeated."""
    counts = Counter(name for name, _ in headers if name in _ATTRIBUTES)
    return next((name for name, count in counts.items() if count > 1), None)


def _is_structured(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == _STRUCTURED


def _read_parts(
    topic: str | None, data: bytes, found: Mapping[str, bytes | None], repeated: str | None, timestamp_ms: int
) -> Received:
    try:
        event_class = _event_class(topic, found)
        attributes = _attributes(found, repeated, timestamp_ms)
        event = _validate(event_class, data)
    except ContractViolation as violation:
        if violation.reason is not Reason.MALFORMED:
            value = parse(data)  # A value that is not JSON is malformed, whatever else is wrong with the record.
            if "ce_type" not in found and isinstance(value, dict) and "specversion" in value:
                raise ContractViolation(violation.reason, _NEEDED_HEADER) from None
        raise
    event._set_attributes(attributes)  # noqa: SLF001 - private to this package
    return Received(event, *attributes)


def _event_class(topic: str | None, found: Mapping[str, bytes | None]) -> type[Event]:
    event_class = _BY_TYPE_HEADER.get(raw := found.get("ce_type"))
    if event_class is None:
        problem = (
            "missing" if raw is None else f"{raw[:100].decode(errors='replace')!r}, which this contract does not define"
        )
        raise ContractViolation(Reason.UNKNOWN_TYPE, f"ce_type is {problem}")
    if topic is not None and topic != event_class.TOPIC:
        raise ContractViolation(Reason.UNKNOWN_TYPE, f"ce_type {event_class.TYPE} does not belong on the topic {topic}")
    return event_class


def _attributes(found: Mapping[str, bytes | None], repeated: str | None, timestamp_ms: int) -> Attributes:
    if repeated is not None:
        raise ContractViolation(Reason.INVALID, f"the header {repeated} occurs more than once")
    if found.get("ce_specversion") != _SPEC_VERSION:
        raise ContractViolation(Reason.INVALID, "ce_specversion is not 1.0")
    event_id, source = _text("ce_id", found), _text("ce_source", found)
    if "ce_time" in found:
        return Attributes(event_id, source, occurred_at(found["ce_time"], timestamp_ms))
    return Attributes(event_id, source, recorded_at(timestamp_ms))


def _text(name: str, found: Mapping[str, bytes | None]) -> str:
    raw = found.get(name)
    if not raw or b"\0" in raw:
        raise ContractViolation(Reason.INVALID, f"{name} is missing, is empty or contains the character NUL")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ContractViolation(Reason.INVALID, f"{name} is not UTF-8") from None
    if len(text) > LONGEST:
        raise ContractViolation(Reason.INVALID, f"{name} has {len(text)} characters, but at most {LONGEST} are allowed")
    return text


def _validate(event_class: type[Event], data: bytes) -> Event:
    # pydantic's parser reads these two words as numbers, but they are not valid JSON.
    if b"NaN" in data or b"Infinity" in data:
        parse(data)
    try:
        return event_class.model_validate_json(data)
    except ValidationError as error:
        raise explain(error) from None
