"""`read` agrees with every golden record."""

from __future__ import annotations

import pytest

from events import ContractViolation, read
from tests.support.contract import Golden, load

RECORDS = load()


def _named(records: list[Golden]) -> list[object]:
    return [pytest.param(record, id=record.name) for record in records]


@pytest.mark.parametrize("record", _named([r for r in RECORDS if r.is_accepted]))
def test_accepted_record_is_the_event_it_says(record: Golden) -> None:
    received = read(record.topic, record.value, record.headers, record.timestamp)
    said = {
        "type": received.event.TYPE,
        "id": received.id,
        "source": received.source,
        "occurred_at": received.occurred_at.isoformat(),
        "data": received.event.model_dump(mode="json", exclude_none=True),
    }
    assert said == record.expect


@pytest.mark.parametrize("record", _named([r for r in RECORDS if not r.is_accepted]))
def test_refused_record_has_its_reason(record: Golden) -> None:
    with pytest.raises(ContractViolation) as refused:
        read(record.topic, record.value, record.headers, record.timestamp)
    assert refused.value.reason == record.expect["reason"]
    assert 0 < len(refused.value.detail) <= 500


def test_every_reason_of_reading_has_a_golden_record() -> None:
    """`read` finds these four reasons, and the applier finds the others."""
    reasons = {record.expect.get("reason") for record in RECORDS} - {None}
    assert reasons == {"malformed", "invalid", "bad_time", "unknown_type"}
