"""Write an event as a Kafka record, by the Kafka protocol binding of CloudEvents."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from events.base import Event

SPEC_VERSION = "1.0"
JSON_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json"


class KafkaRecord(NamedTuple):
    """A record for a Kafka producer. The fields have the names of the parameters of its `send`."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def binary_record(event: Event) -> KafkaRecord:
    """Return a record with the data in its value and the attributes in its headers."""
    attributes = event.attributes
    headers = [
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_id", attributes.id.encode()),
        ("ce_source", attributes.source.encode()),
        ("ce_type", event.TYPE.encode()),
        ("ce_time", write_time(attributes.time).encode()),
        ("content-type", JSON_TYPE.encode()),
    ]
    return KafkaRecord(event.TOPIC, event.key, event.data_json(), headers)


def structured_line(event: Event) -> str:
    """Return the whole event as JSON. A record with this value needs `content-type: application/cloudevents+json`."""
    envelope = {
        "specversion": SPEC_VERSION,
        "id": event.id,
        "source": event.source,
        "type": event.TYPE,
        "time": write_time(event.time),
        "datacontenttype": JSON_TYPE,
        "data": json.loads(event.data_json()),
    }
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))


def write_time(time: datetime) -> str:
    """Return a time in RFC 3339, in UTC with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
