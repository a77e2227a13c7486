"""In which order events are published, with a Kafka that fails as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from aiokafka.errors import KafkaError, NotEnoughReplicasError
from hypothesis import given
from hypothesis import strategies as st

from service.outbox.put import OutboxRow, waves
from service.outbox.relay import publish

KEYS = st.lists(st.sampled_from([b"a", b"b", b"c", None]), max_size=30)
FATES = st.lists(st.sampled_from(["taken", "refused", "taken, but not confirmed"]), max_size=60)


def rows(keys: Sequence[bytes | None]) -> list[OutboxRow]:
    return [OutboxRow(number, "topic", key, b"%d" % number, []) for number, key in enumerate(keys)]


class Kafka:
    """A producer. Each record has a fate; when the list is at its end, all records are taken."""

    def __init__(self, fates: Sequence[str]) -> None:
        self.log: list[tuple[bytes | None, int]] = []
        self._fates: Iterator[str] = iter(fates)
        self._number = 0

    async def partitions_for(self, _topic: str) -> set[int]:
        return {0}

    async def send(self, _topic: str, *, key: bytes | None, value: bytes, **_headers: Any) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fate = next(self._fates, "taken")
        if fate != "refused":
            self.log.append((key, int(value)))
        if fate == "taken":
            future.set_result(None)
        else:
            future.set_exception(NotEnoughReplicasError())
        return future


@given(KEYS)
def test_a_wave_holds_a_key_once_and_later_waves_its_later_rows(keys: list[bytes | None]) -> None:
    """No row is lost, and a key's rows are in successive waves in their order."""
    cut = waves(rows(keys))
    assert sorted(row.id for wave in cut for row in wave) == list(range(len(keys)))
    for key in {b"a", b"b", b"c"} & set(keys):
        assert [row.id for wave in cut for row in wave if row.key == key] == [i for i, k in enumerate(keys) if k == key]
        assert all(sum(row.key == key for row in wave) <= 1 for wave in cut)


@given(KEYS, FATES)
async def test_first_deliveries_of_a_key_are_in_order(keys: list[bytes | None], fates: list[str]) -> None:
    """Events are published and deleted as by the relay, until none is left."""
    kafka = Kafka(fates)
    left = rows(keys)
    while left:
        delivery = await publish(kafka, left)
        assert delivery.confirmed or delivery.failed
        left = [row for row in left if row.id not in delivery.confirmed]
    firsts = list(dict.fromkeys(kafka.log))
    for key in (b"a", b"b", b"c"):
        assert [number for k, number in firsts if k == key] == [number for number, k in enumerate(keys) if k == key]
    assert {number for _, number in firsts} == set(range(len(keys)))


async def test_only_what_was_confirmed_counts_as_confirmed() -> None:
    """A record that Kafka has but did not confirm is published again."""
    kafka = Kafka(["taken", "taken, but not confirmed", "refused"])
    delivery = await publish(kafka, rows([b"a", b"b", b"c"]))
    assert delivery.confirmed == [0]
    assert [row.id for row in delivery.failed] == [1, 2]
    assert all(isinstance(error, KafkaError) for error in delivery.failed.values())
