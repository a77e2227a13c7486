"""The events that every system of the drain reads: the same seed, in the form that each system needs."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from aiokafka import ConsumerRecord
from aiokafka.partitioner import murmur2

from tests.support.load import PARTITIONS, Load, by_slot, make_load
from tests.support.model import LEVELED_UP, Meant, Pair
from tests.support.records import TOPIC, as_record

SEED = 1
LEVELS_TOPIC = TOPIC[LEVELED_UP]
EVENTS_A_USER = 6
Encode = Callable[[Meant, int], ConsumerRecord]


@dataclass(frozen=True)
class Records:
    """The records of each partition in order. The last one is its sentinel: when it is visible, all are written."""

    partitions: Mapping[int, list[Meant]]
    users: int
    """The ids of users are 1 to `users`, including the sentinels' users."""
    sentinels: tuple[int, ...]

    @property
    def total(self) -> int:
        """Return the number of records."""
        return sum(map(len, self.partitions.values()))

    def encoded(self, topic: str, encode: Encode) -> dict[tuple[str, int], Iterable[ConsumerRecord]]:
        """Return the records as they are published, by topic and partition."""
        return {(topic, number): [encode(one, number) for one in meant] for number, meant in self.partitions.items()}

    def reached(self, holders: Iterable[int]) -> int:
        """Return how many records were applied when these users had a license. A user is repeated for each license."""
        pairs = Counter(map(partition_of, holders))
        return sum(_records_until(ones, pairs[number]) for number, ones in self.partitions.items())


def _records_until(meant: Sequence[Meant], pairs: int) -> int:
    """Return how many records are needed to see so many pairs."""
    seen: set[Pair] = set()
    for count, one in enumerate(meant):
        if len(seen) == pairs:
            return count
        seen.add(one.pair)
    return len(meant)


def partition_of(user: int) -> int:
    """Return the partition that Kafka's own partitioner selects for a user."""
    return int((murmur2(str(user).encode()) & 0x7FFFFFFF) % PARTITIONS)


def make_records(events: int, stride: int = 1) -> Records:
    """Return `events` records for a sixth as many users, and four sentinels. User ids are `stride` apart."""
    load = Load(events, max(1, events // EVENTS_A_USER), seed=SEED, kinds=(LEVELED_UP,))
    meant = [dataclasses.replace(one, user=one.user * stride) if stride > 1 else one for one in make_load(load)]
    return _ended({number: list(ones) for (_, number), ones in by_slot(meant).items()}, load.users * stride)


def first_of(records: Records, events: int) -> Records:
    """Return the first records, for a system that would need an hour for all of them."""
    meant = sorted(itertools.chain(*(ones[:-1] for ones in records.partitions.values())), key=lambda one: one.at)
    share = {number: list(ones) for (_, number), ones in by_slot(meant[:events]).items()}
    return _ended(share, records.users - max(records.sentinels) + min(records.sentinels) - 1)


def encode(meant: Meant, partition: int) -> ConsumerRecord:
    """Return a record as the package `events` writes it."""
    return as_record(meant, -1, partition)


def _ended(partitions: Mapping[int, list[Meant]], users: int) -> Records:
    """Add a sentinel after the last record of every partition."""
    after = max(one.at for ones in partitions.values() for one in ones) + timedelta(seconds=1)
    found: dict[int, int] = {}
    user = users
    while len(found) < PARTITIONS:
        user += 1
        found.setdefault(partition_of(user), user)
    last = {
        number: Meant(LEVELED_UP, who, "PLAYER", 1, after, "/load", f"end{number}") for number, who in found.items()
    }
    ended = {number: [*partitions.get(number, []), last[number]] for number in range(PARTITIONS)}
    return Records(ended, user, tuple(found.values()))
