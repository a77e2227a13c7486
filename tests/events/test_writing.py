"""What a publisher creates and sends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from events import (
    MODELS,
    ContractViolation,
    Event,
    LicenseAdvanced,
    ProgressLeveledUp,
    Reason,
    ReconcileChunk,
    ReconcileRequested,
    read,
    read_line,
)

WHEN = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
RUN = "0b7f4f0e-6d0c-4a3e-9a65-3c6f2d1f5f10"


def _leveled_up(**more: Any) -> ProgressLeveledUp:
    data: dict[str, Any] = {"user_id": 42, "specialization": "PLAYER", "to_level": 5}
    return ProgressLeveledUp(**(data | more))


def test_record_is_cloudevents_binary_mode() -> None:
    topic, key, value, headers = _leveled_up(id="e-1", source="/app/progress", time=WHEN).to_kafka()
    assert (topic, key) == ("progress.leveled-up", b"42")
    assert json.loads(value) == {"user_id": 42, "specialization": "PLAYER", "to_level": 5}
    assert headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"e-1"),
        ("ce_source", b"/app/progress"),
        ("ce_type", b"progress.leveled-up.v1"),
        ("ce_time", b"2026-01-31T12:00:00.250000Z"),
        ("content-type", b"application/json"),
    ]


@pytest.mark.parametrize("model", MODELS)
def test_written_events_are_read_in_both_modes(model: type[Event]) -> None:
    [example] = model.model_json_schema()["examples"]
    event = model.model_validate_json(json.dumps(example))
    record = event.to_kafka()
    now = int(event.time.timestamp() * 1000)
    assert read(record.topic, record.value, record.headers, now).event == event
    assert read_line(event.to_structured()) == event


def test_time_is_written_in_utc() -> None:
    event = _leveled_up(time=WHEN.astimezone(timezone(timedelta(hours=-7))))
    assert dict(event.to_kafka().headers)["ce_time"] == b"2026-01-31T12:00:00.250000Z"


def test_attributes_have_defaults_that_stay() -> None:
    first, second = _leveled_up(), _leveled_up()
    assert first.id != second.id
    assert first.source == "levelsync"
    assert abs(datetime.now(UTC) - first.time) < timedelta(minutes=1)
    assert first.to_kafka() == first.to_kafka()


def test_keys_keep_together_what_must_stay_in_order() -> None:
    assert LicenseAdvanced(user_id=7, specialization="COACH", to_level=2).to_kafka().key == b"7"
    assert ReconcileRequested(id=RUN).to_kafka().key == RUN.encode()
    chunk = ReconcileChunk.model_validate_json(json.dumps({"run_id": RUN, "phase": "scan", "chunk": 3}))
    assert chunk.to_kafka().key == f"{RUN}:3".encode()


def test_a_reconcile_is_a_dry_run_unless_it_says_otherwise() -> None:
    """Law 8."""
    request = ReconcileRequested()
    assert (request.dry_run, request.force, request.direction) == (True, False, "progress_to_license")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", "42"),
        ("user_id", True),
        ("to_level", 4.0),
        ("from_level", 5),
        ("specialization", "A\0"),
        ("id", ""),
        ("source", "a\0"),
        ("source", "\ud800"),
        ("time", datetime(2026, 1, 1)),  # noqa: DTZ001 - a time without a zone is the point
        ("time", datetime(1999, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_event_that_no_consumer_would_accept_cannot_be_made(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        _leveled_up(**{field: value})


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        _leveled_up().to_level = 6  # type: ignore[misc]


def test_a_line_without_a_time_occurs_now() -> None:
    envelope = json.loads(_leveled_up().to_structured())
    del envelope["time"]
    assert abs(datetime.now(UTC) - read_line(json.dumps(envelope)).time) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("line", "reason", "says"),
    [
        ("", Reason.MALFORMED, "JSON"),
        ("[]", Reason.INVALID, "envelope"),
        ('{"data": {}}', Reason.UNKNOWN_TYPE, "ce_type"),
        ('{"type": "\ud800"}', Reason.MALFORMED, "JSON"),
        (b"\xff", Reason.MALFORMED, "JSON"),
        (_leveled_up().to_structured().replace('"user_id":42', '"user_id":0'), Reason.INVALID, "user_id"),
    ],
)
def test_a_bad_line_names_what_is_wrong(line: str | bytes, reason: Reason, says: str) -> None:
    with pytest.raises(ContractViolation, match=says) as refused:
        read_line(line)
    assert refused.value.reason is reason
