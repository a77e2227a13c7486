"""The quick way of decoding accepts a subset of what the contract accepts, with the same result."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from hypothesis import example, given, settings
from hypothesis import strategies as st

from events import LicenseAdvanced, ProgressLeveledUp
from service.core.decode import decode, decode_one, read_quickly
from service.core.outcomes import DeadLetter

WHEN = datetime(2026, 1, 31, 12, 0, 5, 250_000, tzinfo=UTC)
NOW = int(WHEN.timestamp() * 1000) + 3
GOOD = [
    ProgressLeveledUp(user_id=42, specialization="PLAYER", to_level=5, from_level=4, id="e-1", source="/a", time=WHEN),
    ProgressLeveledUp(user_id=2**63 - 1, specialization="x" * 50, to_level=2**31 - 1, id="e", source="/a", time=WHEN),
    LicenseAdvanced(
        user_id=7, specialization="COACH", to_level=2, advanced_by=1, reason="a", id="e", source="/", time=WHEN
    ),
]


def record(topic: str, value: bytes | None, headers: Any, timestamp: int = NOW) -> ConsumerRecord:
    return ConsumerRecord(topic, 0, 0, timestamp, 0, b"42", value, None, 2, 0, tuple(headers))


def of(event: Any, timestamp: int = NOW, header: str = "", content: bytes = b"") -> ConsumerRecord:
    """Return the record of an event, with one header changed."""
    made = event.to_kafka()
    changed = [(name, content if name == header else said) for name, said in made.headers]
    return record(made.topic, made.value, changed, timestamp)


def agree(one: ConsumerRecord) -> bool:
    """Return whether the quick way accepts a record. Its result must then be that of the full way."""
    quick = read_quickly(0, one)
    if quick is not None:
        assert quick == decode_one(0, one)
    return quick is not None


@pytest.mark.parametrize("event", GOOD)
def test_good_records_go_the_short_way(event: Any) -> None:
    for timestamp in (NOW, NOW - 60_000):
        assert agree(of(event, timestamp=timestamp))


def spoiled(content: bytes) -> st.SearchStrategy[bytes]:
    """One byte changed, inserted or left out."""
    at = st.integers(0, len(content))
    change = st.tuples(at, st.binary(max_size=2), st.integers(0, 2))
    return change.map(lambda c: content[: c[0]] + c[1] + content[c[0] + c[2] :])


@given(st.sampled_from(GOOD).flatmap(lambda event: st.tuples(st.just(event), spoiled(event.to_kafka().value))))
@settings(max_examples=300, deadline=None)
def test_a_spoiled_value_is_never_read_otherwise(case: tuple[Any, bytes]) -> None:
    event, value = case
    made = event.to_kafka()
    agree(record(made.topic, value, made.headers))


@given(
    st.sampled_from(["ce_time", "ce_id", "ce_source", "ce_type", "ce_specversion", "content-type"]).flatmap(
        lambda name: st.tuples(st.just(name), spoiled(dict(GOOD[0].to_kafka().headers)[name] or b""))
    )
)
@settings(max_examples=300, deadline=None)
def test_a_spoiled_header_is_never_read_otherwise(case: tuple[str, bytes]) -> None:
    name, content = case
    agree(of(GOOD[0], NOW, name, content))


TIMES = st.from_regex(
    rb"20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6 ][0-9_]([.,][0-9]{1,8})?(Z|z|[+-]0[01]:00)",
    fullmatch=True,
)


@given(TIMES, st.integers(-1, 4_000_000_000_000))
@example(b"2026-01-31T12:00:1_0Z", NOW)
@example(b"2026-01-31T12:00:61Z", NOW)
@example(b"2026-01-31T12:00:60Z", NOW)
@example(b"2026-01-31T12:00: 5Z", NOW)
@example(b"2026-02-30T12:00:05Z", NOW)
@example(b"1999-12-31T23:59:59Z", NOW)
@example(b"2026-01-31T12:05:05.253001Z", NOW)
@settings(max_examples=300, deadline=None)
def test_no_time_is_read_otherwise(ce_time: bytes, timestamp: int) -> None:
    agree(of(GOOD[0], timestamp, "ce_time", ce_time))


VALUES = st.sampled_from(
    [b"1", b"2", b"0", b"-0", b"01", b"1.0", b"1e0", b"true", b"null", b'"1"', b'"PLAYER"', b'"\\u0000"', b'"\\ud800"',
     b'"\\u00e9"', b'"\xc3\xa9"', b"9223372036854775808", b"[]", b"{}", b"NaN", b'"\\x"', b'"\t"']
)  # fmt: skip
NAMES = st.sampled_from([b"user_id", b"specialization", b"to_level", b"from_level", b"reason", b"x", b"user\\u005fid"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=7), st.sampled_from(GOOD[1:]))
@settings(max_examples=300, deadline=None)
def test_repeated_and_unknown_keys_are_never_read_otherwise(pairs: list[tuple[bytes, bytes]], event: Any) -> None:
    """JSON allows a key twice. The last one counts."""
    start = b'"user_id": 1, "specialization": "PLAYER", "to_level": 3'
    value = b"{" + b", ".join([start, *(b'"%s": %s' % pair for pair in pairs)]) + b"}"
    agree(record(event.TOPIC, value, event.to_kafka().headers))


def test_a_record_that_goes_the_long_way_takes_no_other_with_it() -> None:
    bad = record(GOOD[0].TOPIC, b"{", GOOD[0].to_kafka().headers)
    headers = [("content-type", b"application/cloudevents+json")]
    structured = record(GOOD[0].TOPIC, GOOD[0].to_structured().encode(), headers)
    decoded = decode([of(GOOD[0]), bad, structured, of(GOOD[0], timestamp=NOW + 1)])
    assert [one.index for one in decoded] == [0, 1, 2, 3]
    assert [isinstance(one, DeadLetter) for one in decoded] == [False, True, False, False]


def test_every_minute_is_forgotten_in_time() -> None:
    """A replayed topic has times of many minutes, more than the cache stores."""
    for minutes in range(1100):
        ce_time = (WHEN - timedelta(minutes=minutes)).isoformat().encode()
        assert agree(of(GOOD[0], NOW, "ce_time", ce_time))
