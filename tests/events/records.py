"""A good record, ways to spoil it, and what `read` says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from events import ContractViolation, ProgressLeveledUp, Reason, read

TOPIC = ProgressLeveledUp.TOPIC
WHEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = int(WHEN.timestamp() * 1000)
GOOD = ProgressLeveledUp(user_id=42, specialization="PLAYER", to_level=5, id="e-1", source="/app", time=WHEN).to_kafka()
STRUCTURED: list[tuple[str, bytes | None]] = [("content-type", b"application/cloudevents+json")]


def outcome_of(value: bytes | None, headers: Any = GOOD.headers, timestamp: int = NOW, topic: str = TOPIC) -> Any:
    """The event as received, or the reason."""
    try:
        return read(topic, value, headers, timestamp)
    except ContractViolation as violation:
        return _reason(violation)


def _reason(violation: ContractViolation) -> Reason:
    """The reason; the detail must be a short text that PostgreSQL can store."""
    assert 0 < len(violation.detail.encode().decode()) <= 500
    assert "\0" not in violation.detail
    return violation.reason


def with_header(name: str, content: bytes | None) -> list[tuple[str, bytes | None]]:
    return [(n, content if n == name else c) for n, c in GOOD.headers]
