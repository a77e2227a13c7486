"""What every system of the drain reads: the same events from the same seed, in the form that each of them needs."""

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
    """The records of each partition in their order; the last of each is its sentinel, the sign that all is written."""

    partitions: Mapping[int, list[Meant]]
    users: int
    """Users are 1 to `users`, those of the sentinels too."""
    sentinels: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many records there are."""
        return sum(map(len, self.partitions.values()))

    def encoded(self, topic: str, encode: Encode) -> dict[tuple[str, int], Iterable[ConsumerRecord]]:
        """The records of a topic as they are published."""
        return {(topic, number): [encode(one, number) for one in meant] for number, meant in self.partitions.items()}

    def reached(self, holders: Iterable[int]) -> int:
        """How many records were applied when these users had a license, each once for every license that they had."""
        pairs = Counter(map(partition_of, holders))
        return sum(_walk(ones, pairs[number]) for number, ones in self.partitions.items())


def _walk(meant: Sequence[Meant], pairs: int) -> int:
    """How many records it takes until so many pairs have been seen."""
    seen: set[Pair] = set()
    for count, one in enumerate(meant):
        if len(seen) == pairs:
            return count
        seen.add(one.pair)
    return len(meant)


def partition_of(user: int) -> int:
    """Where Kafka's own partitioner puts a user's events."""
    return int((murmur2(str(user).encode()) & 0x7FFFFFFF) % PARTITIONS)


def make_records(events: int, stride: int = 1) -> Records:
    """`events` records for a sixth as many users, and four sentinels; the users are `stride` ids apart."""
    load = Load(events, max(1, events // EVENTS_A_USER), seed=SEED, kinds=(LEVELED_UP,))
    meant = [dataclasses.replace(one, user=one.user * stride) if stride > 1 else one for one in make_load(load)]
    return _ended({number: list(ones) for (_, number), ones in by_slot(meant).items()}, load.users * stride)


def first_of(records: Records, events: int) -> Records:
    """A share of the records, for a system that would take an hour for all of them."""
    meant = sorted(itertools.chain(*(ones[:-1] for ones in records.partitions.values())), key=lambda one: one.at)
    share = {number: list(ones) for (_, number), ones in by_slot(meant[:events]).items()}
    return _ended(share, records.users - max(records.sentinels) + min(records.sentinels) - 1)


def encode(meant: Meant, partition: int) -> ConsumerRecord:
    """A record as the contract's own code writes it."""
    return as_record(meant, -1, partition)


def _ended(partitions: Mapping[int, list[Meant]], users: int) -> Records:
    """Put a sentinel behind every partition's last record."""
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
