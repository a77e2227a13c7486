"""`read` returns an event or raises a ContractViolation, whatever the bytes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from events import TOPICS, ProgressLeveledUp, Reason, Received
from tests.support.contract import GOOD, NOW, STRUCTURED, outcome_of, with_header

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


@given(value=VALUES, headers=HEADERS, timestamp=TIMES, topic=st.sampled_from(TOPICS) | st.text())
def test_any_record_is_an_event_or_a_violation(
    value: bytes, headers: list[tuple[str, bytes | None]], timestamp: int, topic: str
) -> None:
    """In binary mode."""
    assert isinstance(outcome_of(value, headers, timestamp, topic), Received | Reason)


@given(value=VALUES, timestamp=TIMES)
@example(value=b'{"type":"progress.leveled-up.v1","specversion":"1.0","id":"\\ud800","data":{}}', timestamp=NOW)
def test_any_envelope_is_an_event_or_a_violation(value: bytes, timestamp: int) -> None:
    """In structured mode."""
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
