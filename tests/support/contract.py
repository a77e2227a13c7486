"""Good and bad records of the contract: those of `examples/golden`, and ways to change one."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from events import ContractViolation, ProgressLeveledUp, read

FOLDER = Path(__file__).parents[2] / "examples" / "golden"


@dataclass(frozen=True)
class Golden:
    """One record and what is expected of it."""

    name: str
    topic: str
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int
    expect: dict[str, Any]

    @property
    def is_accepted(self) -> bool:
        return "reason" not in self.expect


def load() -> list[Golden]:
    """Return every golden record, named by its file and its own name."""
    files = sorted(FOLDER.glob("*.json"))
    return [_golden(file.stem, record) for file in files for record in json.loads(file.read_text("utf-8"))]


def _golden(file: str, record: dict[str, Any]) -> Golden:
    headers = [(header["name"], _bytes(header)) for header in record["headers"]]
    name = f"{file}: {record['name']}"
    return Golden(name, record["topic"], _bytes(record), headers, record["timestamp"], record["expect"])


def _bytes(holder: dict[str, Any]) -> bytes | None:
    if "value_base64" in holder:
        return base64.b64decode(holder["value_base64"])
    return None if holder["value"] is None else holder["value"].encode()


TOPIC = ProgressLeveledUp.TOPIC
WHEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = int(WHEN.timestamp() * 1000)
GOOD = ProgressLeveledUp(user_id=42, specialization="PLAYER", to_level=5, id="e-1", source="/app", time=WHEN).to_kafka()
STRUCTURED: list[tuple[str, bytes | None]] = [("content-type", b"application/cloudevents+json")]


def outcome_of(value: bytes | None, headers: Any = GOOD.headers, timestamp: int = NOW, topic: str = TOPIC) -> Any:
    """Return the event as received, or the reason of its refusal. PostgreSQL can store the detail of a refusal."""
    try:
        return read(topic, value, headers, timestamp)
    except ContractViolation as violation:
        reason, detail = violation.reason, violation.detail
    assert 0 < len(detail.encode().decode()) <= 500
    assert "\0" not in detail
    return reason


def with_header(name: str, content: bytes | None) -> list[tuple[str, bytes | None]]:
    return [(n, content if n == name else c) for n, c in GOOD.headers]
