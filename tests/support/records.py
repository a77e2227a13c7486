"""Hypothesis strategies for what publishers send, and the Kafka records of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from aiokafka import ConsumerRecord
from hypothesis import strategies as st

from events import LicenseAdvanced, ProgressLeveledUp
from tests.support.model import ADVANCED, LEVELED_UP, Meant
from tests.support.topics import Record

MAXIMUM = {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}
USERS = {1, 2, 3, 4}
START = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = {LEVELED_UP: "progress.leveled-up", ADVANCED: "license.advanced"}
_MODEL = {LEVELED_UP: ProgressLeveledUp, ADVANCED: LicenseAdvanced}
_BROKEN = {
    "malformed": b'{"user_id": 1, "specialization"',
    "invalid": b'{"user_id": "1", "specialization": "PLAYER", "to_level": 2}',
}


@st.composite
def meanings(draw: st.DrawFn, kinds: Sequence[str] = (LEVELED_UP, ADVANCED)) -> list[Meant]:
    """Draw a list of records of few users, so that events of one pair meet. Some are bad, some occur twice."""
    single = st.builds(
        Meant,
        kind=st.sampled_from(list(kinds)),
        user=st.sampled_from([*sorted(USERS), *sorted(USERS), 99]),
        specialization=st.sampled_from([*MAXIMUM, *MAXIMUM, "WIZARD"]),
        to_level=st.integers(1, 9),
        at=st.integers(0, 500).map(lambda minutes: START + timedelta(minutes=minutes)),
        source=st.just("/test"),
        id=st.just(""),
        bad=st.sampled_from(["", "", "", "", "", "malformed", "invalid"]),
    )
    meant = [replace(one, id=f"e{index}") for index, one in enumerate(draw(st.lists(single, max_size=25)))]
    again = draw(st.lists(st.sampled_from(meant), max_size=6)) if meant else []
    return draw(st.permutations(meant + again)) if draw(st.booleans()) else meant + again


def as_record(meant: Meant, offset: int, partition: int = 0) -> ConsumerRecord:
    """Return the Kafka record, written by the contract's own code. A bad one has a broken value."""
    event = _MODEL[meant.kind](
        user_id=meant.user,
        specialization=meant.specialization,
        to_level=meant.to_level,
        id=meant.id,
        source=meant.source,
        time=meant.at,
    )
    written = event.to_kafka()
    value = _BROKEN.get(meant.bad, written.value)
    timestamp = int(meant.at.timestamp() * 1000)
    sizes = (len(written.key or b""), len(value))
    return ConsumerRecord(
        TOPIC[meant.kind], partition, offset, timestamp, 0, written.key, value, None, *sizes, tuple(written.headers)
    )


def as_sent(meant: Meant, partition: int | None = None) -> Record:
    """Return the record for `topics.publish`. Without a partition the key chooses it."""
    made = as_record(meant, -1)
    return Record(made.topic, made.key, made.value, made.headers, made.timestamp, partition)


def with_case(record: ConsumerRecord, specialization: str) -> ConsumerRecord:
    """Return the same record with its specialization written in another case."""
    data = json.loads(record.value) | {"specialization": specialization}
    return replace(record, value=json.dumps(data).encode())
