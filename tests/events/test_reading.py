"""`read`: every golden record, any bytes at all, and values that are too large, too deep or too precise."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from events import TOPICS, ContractViolation, ProgressLeveledUp, Reason, Received, ReconcileChunk, read
from tests.support.contract import GOOD, NOW, STRUCTURED, WHEN, Golden, load, outcome_of, with_header

RECORDS = load()
NAMES = [name for name, _ in GOOD.headers] + ["traceparent", "CE_ID", ""]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DATA = st.fixed_dictionaries(
    {},
    optional={name: JSON | st.integers(0, 9) for name in ("user_id", "specialization", "to_level", "from_level", "id")},
)
ENVELOPES = st.fixed_dictionaries(
    {"type": st.just(ProgressLeveledUp.TYPE) | JSON, "specversion": st.just("1.0") | JSON},
    optional=dict.fromkeys(("id", "source", "time"), JSON) | {"data": DATA | JSON, "data_base64": JSON},
)
VALUES = st.binary() | (DATA | ENVELOPES | JSON).map(lambda value: json.dumps(value).encode())
HEADERS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.none() | st.binary() | st.sampled_from(list(dict(GOOD.headers).values())))
)
TIMES = st.integers(-(2**63), 2**63) | st.integers(NOW - 1000, NOW + 1000)


def _named(records: list[Golden]) -> list[object]:
    return [pytest.param(record, id=record.name) for record in records]


@pytest.mark.parametrize("record", _named([r for r in RECORDS if r.is_accepted]))
def test_accepted_record_is_the_event_it_says(record: Golden) -> None:
    received = read(record.topic, record.value, record.headers, record.timestamp)
    said = {"type": received.event.TYPE, "id": received.id, "source": received.source}
    said |= {"occurred_at": received.occurred_at.isoformat()}
    assert said | {"data": received.event.model_dump(mode="json", exclude_none=True)} == record.expect


@pytest.mark.parametrize("record", _named([r for r in RECORDS if not r.is_accepted]))
def test_refused_record_has_its_reason(record: Golden) -> None:
    with pytest.raises(ContractViolation) as refused:
        read(record.topic, record.value, record.headers, record.timestamp)
    assert refused.value.reason == record.expect["reason"]
    assert 0 < len(refused.value.detail) <= 500


def test_every_reason_of_reading_has_a_golden_record() -> None:
    reasons = {record.expect.get("reason") for record in RECORDS} - {None}
    assert reasons == {"malformed", "invalid", "bad_time", "unknown_type"}


@given(value=VALUES, headers=HEADERS, timestamp=TIMES, topic=st.sampled_from(TOPICS) | st.text())
def test_any_record_is_an_event_or_a_violation(value: bytes, headers: Any, timestamp: int, topic: str) -> None:
    assert isinstance(outcome_of(value, headers, timestamp, topic), Received | Reason)


@given(value=VALUES, timestamp=TIMES)
@example(value=b'{"type":"progress.leveled-up.v1","specversion":"1.0","id":"\\ud800","data":{}}', timestamp=NOW)
def test_any_envelope_is_an_event_or_a_violation(value: bytes, timestamp: int) -> None:
    assert isinstance(outcome_of(value, STRUCTURED, timestamp), Received | Reason)


@given(ce_time=st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.,]{5,20}([Zz]|[+-][0-9]{2}:[0-9]{2})?") | st.text())
def test_any_ce_time_is_a_time_or_bad_time(ce_time: str) -> None:
    outcome = outcome_of(GOOD.value, with_header("ce_time", ce_time.encode()))
    assert isinstance(outcome, Received) or outcome is Reason.BAD_TIME


@given(data=DATA)
def test_data_is_read_as_the_contract_has_it(data: dict[str, Any]) -> None:
    """Compare `read` with an independent statement of the rules for ProgressLeveledUp."""
    text = json.dumps(data)
    outcome = outcome_of(text.encode())
    if "NaN" in text or "Infinity" in text:
        assert outcome in {Reason.MALFORMED, Reason.INVALID}
    else:
        assert isinstance(outcome, Received) == _is_level_event(data)


def _is_level_event(data: dict[str, Any]) -> bool:
    user, level, before = data.get("user_id"), data.get("to_level"), data.get("from_level")
    name = data.get("specialization")
    return (
        type(user) is int
        and 1 <= user < 2**63
        and type(level) is int
        and 1 <= level < 2**31
        and (before is None or (type(before) is int and 0 <= before < level))
        and isinstance(name, str)
        and 1 <= len(name) <= 50
        and "\0" not in name
    )


@pytest.mark.parametrize("mode", [GOOD.headers, STRUCTURED], ids=["binary", "structured"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"[" * 10_000 + b"]" * 10_000, id="10,000 nested lists"),
        pytest.param(b'{"user_id":' * 10_000 + b"1" + b"}" * 10_000, id="10,000 nested objects"),
        pytest.param(b'{"a":"' + b"\xff" * 100 + b'"}', id="not UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', id="a lone surrogate"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a":-Infinity}', id="infinity"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="a number of 5,000 digits"),
        pytest.param(b"{}\0", id="NUL after the value"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
    ],
)
def test_values_that_are_not_json_are_malformed(value: bytes, mode: Any) -> None:
    """In both modes. Values beyond the parser's limits count as malformed."""
    assert outcome_of(value, mode) is Reason.MALFORMED


def test_ten_megabytes_are_read() -> None:
    data = json.loads(GOOD.value) | {"padding": "x" * 10_000_000}
    assert isinstance(outcome_of(json.dumps(data).encode()), Received)


def test_ten_megabytes_in_a_bounded_text_are_invalid() -> None:
    data = json.loads(GOOD.value) | {"specialization": "x" * 10_000_000}
    assert outcome_of(json.dumps(data).encode()) is Reason.INVALID


def test_a_range_number_beyond_four_bytes_is_invalid() -> None:
    """The database counts ranges in four bytes, so a larger number could only be retried for ever."""
    headers = [(name, ReconcileChunk.TYPE.encode() if name == "ce_type" else value) for name, value in GOOD.headers]
    data = json.dumps({"run_id": str(UUID(int=1)), "phase": "scan", "chunk": 2**31}).encode()
    assert outcome_of(data, headers, topic=ReconcileChunk.TOPIC) is Reason.INVALID


@pytest.mark.parametrize("name", ["ce_id", "ce_source"])
def test_an_attribute_has_255_characters_at_most(name: str) -> None:
    """Characters, not bytes, in both modes. The history stores both attributes."""
    assert isinstance(outcome_of(GOOD.value, with_header(name, "é".encode() * 255)), Received)
    assert outcome_of(GOOD.value, with_header(name, "é".encode() * 256)) is Reason.INVALID
    assert outcome_of(GOOD.value, with_header(name, b"x" * 900_000)) is Reason.INVALID
    envelope = {"specversion": "1.0", "id": "1", "source": "s", "type": "progress.leveled-up.v1"}
    envelope |= {"data": json.loads(GOOD.value), name.removeprefix("ce_"): "x" * 256}
    assert outcome_of(json.dumps(envelope).encode(), STRUCTURED) is Reason.INVALID
    given: dict[str, Any] = {name.removeprefix("ce_"): "x" * 256}
    with pytest.raises(ValueError, match="255 characters"):
        ProgressLeveledUp(user_id=1, specialization="PLAYER", to_level=2, **given)


def test_the_word_nan_in_a_text_is_allowed() -> None:
    assert isinstance(outcome_of(json.dumps(json.loads(GOOD.value) | {"name": "NaN Infinity"}).encode()), Received)


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"])
def test_a_repeated_attribute_is_invalid(name: str) -> None:
    assert outcome_of(GOOD.value, [*GOOD.headers, (name, dict(GOOD.headers)[name])]) is Reason.INVALID


def test_other_headers_may_be_there_many_times() -> None:
    assert isinstance(outcome_of(GOOD.value, [*GOOD.headers, *[("traceparent", b"x")] * 100_000]), Received)


@pytest.mark.parametrize("timestamp", [-1, 0, 2**62, 253_402_300_800_000])
def test_an_unusable_timestamp_matters_only_without_ce_time(timestamp: int) -> None:
    assert isinstance(outcome_of(GOOD.value, timestamp=timestamp), Received)
    without = [header for header in GOOD.headers if header[0] != "ce_time"]
    assert outcome_of(GOOD.value, without, timestamp) is Reason.BAD_TIME


@pytest.mark.parametrize(
    "ce_time", [b"9999-12-31T23:59:59-23:59", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:60Z"]
)
def test_a_time_beyond_the_calendar_is_bad_time(ce_time: bytes) -> None:
    """In UTC the year would be 10000 or 0."""
    assert outcome_of(GOOD.value, with_header("ce_time", ce_time)) is Reason.BAD_TIME


def test_a_leap_second_is_the_next_second() -> None:
    """RFC 3339 allows it, and Python does not."""
    received = outcome_of(GOOD.value, with_header("ce_time", b"2016-12-31T23:59:60Z"))
    assert received.occurred_at == datetime(2017, 1, 1, tzinfo=UTC)


def test_five_minutes_ahead_is_the_limit_to_the_microsecond() -> None:
    limit = WHEN + timedelta(minutes=5)
    assert outcome_of(GOOD.value, with_header("ce_time", limit.isoformat().encode())).occurred_at == limit
    above = (limit + timedelta(microseconds=1)).isoformat().encode()
    assert outcome_of(GOOD.value, with_header("ce_time", above)) is Reason.BAD_TIME


def test_data_never_becomes_an_attribute() -> None:
    data = json.loads(GOOD.value) | {"id": "forged", "source": "forged", "time": "forged", "_attributes": "forged"}
    received = outcome_of(json.dumps(data).encode())
    assert (received.event.id, received.event.source, received.event.time) == ("e-1", "/app", WHEN)


@pytest.mark.parametrize("headers", [[], [("content-type", b"application/json")]])
def test_a_structured_event_without_content_type_names_the_missing_header(headers: Any) -> None:
    """`to_structured` of the Python SDK leaves the header to the sender."""
    value = ProgressLeveledUp(user_id=1, specialization="PLAYER", to_level=2).to_structured().encode()
    with pytest.raises(ContractViolation) as refused:
        read("progress.leveled-up", value, headers, 1_700_000_000_000)
    assert refused.value.reason == "unknown_type"
    assert refused.value.detail.endswith("needs the header content-type: application/cloudevents+json")
