"""CloudEvents 1.0, Kafka protocol binding: writing (binary mode for Kafka, structured mode for files)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from events.base import Event

STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"


class KafkaRecord(NamedTuple):
    """What a producer sends."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def as_kafka(event: Event) -> KafkaRecord:
    """Binary mode: the attributes are headers, the value is the data."""
    headers = [(f"ce_{name}", value.encode()) for name, value in _attributes(event).items()]
    headers.append(("content-type", b"application/json"))
    key = event.key.encode() or None
    return KafkaRecord(event.TOPIC, key, event.model_dump_json(exclude_none=True).encode(), headers)


def as_structured(event: Event) -> str:
    """Structured mode: one JSON object with attributes and data, on one line."""
    data = event.model_dump(mode="json", exclude_none=True)
    envelope = _attributes(event) | {"datacontenttype": "application/json", "data": data}
    return json.dumps(envelope, ensure_ascii=False)


def rfc3339(time: datetime) -> str:
    """A time as CloudEvents wants it, in UTC with microseconds.

    Raises:
        ValueError: the time has no zone.
    """
    if time.tzinfo is None:
        raise ValueError("an event's time needs a time zone")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _attributes(event: Event) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.TYPE,
        "time": rfc3339(event.time),
    }
