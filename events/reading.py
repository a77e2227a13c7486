"""CloudEvents 1.0, Kafka protocol binding: reading, binary and structured mode.

Pure, and on the hot path of every record: one look at the headers and one validation of the bytes where all is well;
what is wrong is found out only afterwards, by `events.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from events.base import Event
from events.catalogue import BY_TOPIC
from events.diagnosis import diagnose, unpack_structured
from events.reasons import ContractViolation, Reason
from events.times import occurred_at

Headers = Sequence[tuple[str, bytes | None]]
_READ = frozenset({"ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time"})


@dataclass(slots=True)
class Received:
    """A record that keeps the contract: its data, and the attributes that the service uses."""

    event: Event
    id: str
    source: str
    occurred_at: datetime
    """UTC: `ce_time`, or the record's timestamp where that is missing."""


def read(topic: str, value: bytes | None, headers: Headers, timestamp_ms: int) -> Received:
    """Read one record.

    Args:
        topic: where it came from; a type belongs to one topic.
        value: the record's value; None is a tombstone.
        headers: only the `ce_*` attributes and `content-type` matter, whatever the others hold.
        timestamp_ms: the record's timestamp, milliseconds since 1970.

    Raises:
        ContractViolation: with the dead-letter reason.
    """
    if value is None:
        raise ContractViolation(Reason.MALFORMED, "the record is a tombstone (null value)")
    attributes: dict[str, bytes | None] = {}
    for name, content in headers:
        if name in _READ:
            if name in attributes:
                raise diagnose(topic, value, headers, f"header {name} stands twice")
            attributes[name] = content
        elif name == "content-type" and content and content[:23].lower() == b"application/cloudevents":
            return _read_structured(topic, value, content, timestamp_ms)
    try:
        return _read_binary(topic, value, attributes, timestamp_ms)
    except (ValidationError, KeyError, AttributeError, UnicodeDecodeError, _NotTheContract) as error:
        raise diagnose(topic, value, headers, error) from None


class _NotTheContract(Exception):  # noqa: N818 - never leaves this module
    """The fast path has met something that only the slow one can name."""


def _read_binary(topic: str, value: bytes, attributes: dict[str, bytes | None], timestamp_ms: int) -> Received:
    model = BY_TOPIC[topic]
    # A header that is null or missing raises here, and is then named by the diagnosis.
    ce_id = attributes["ce_id"].decode()  # type: ignore[union-attr]
    source = attributes["ce_source"].decode()  # type: ignore[union-attr]
    if attributes["ce_type"] != model.TYPE_BYTES or attributes["ce_specversion"] != b"1.0":
        raise _NotTheContract
    if not ce_id or not source or "\0" in ce_id or "\0" in source:
        raise _NotTheContract
    ce_time = attributes["ce_time"].decode() if "ce_time" in attributes else None  # type: ignore[union-attr]
    event = model.model_validate_json(value)
    return Received(event, ce_id, source, occurred_at(ce_time, timestamp_ms))


def _read_structured(topic: str, value: bytes, content_type: bytes, timestamp_ms: int) -> Received:
    """Turn the envelope into what binary mode would have been, and read that."""
    data, headers = unpack_structured(value, content_type)
    return read(topic, data, headers, timestamp_ms)
