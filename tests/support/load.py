"""A publisher's load of tens of thousands of records, from a seed, for the benchmark and the crash tests.

Hypothesis looks for small counterexamples (`records.py`). This module looks for races, which need many records.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

from aiokafka import ConsumerRecord
from aiokafka.partitioner import murmur2

from tests.support.model import ADVANCED, LEVELED_UP, Meant, Pair
from tests.support.records import MAXIMUM, TOPIC, as_record

SEED = "LEVELSYNC_TEST_SEED"


def new_seed() -> int:
    """Return LEVELSYNC_TEST_SEED or a new seed, and print it. pytest shows it for a failed test."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(1_000_000))
    print(f"run it again with {SEED}={seed}")  # noqa: T201 - see above
    return seed


PARTITIONS = 4
NO_USER = 2_000_000_000
_SPECIALIZATIONS = ("PLAYER", "COACH")
_DUPLICATE_WITHIN = 1000
"""Records between an event and its duplicate, at most: near enough for one batch, far enough for two."""
Slot = tuple[str, int]
"""A topic and a partition of it."""


@dataclass(frozen=True)
class Load:
    """How many records of which kind. Shares are of `records`; users are 1 to `users`."""

    records: int
    users: int
    seed: int
    duplicates: float = 0.05
    out_of_order: float = 0.02
    bad: float = 0.0
    kinds: Sequence[str] = (LEVELED_UP, ADVANCED)


def make_load(load: Load, name: str = "e") -> list[Meant]:
    """Return records in the order of publishing. Ids begin with `name`, and times end an hour ago or later."""
    rng = Random(load.seed)  # noqa: S311 - a load, not a secret
    bad, again = round(load.records * load.bad), round(load.records * load.duplicates)
    rises = _rises(load, load.records - bad - again, name, rng)
    places = [(float(index), meant) for index, meant in enumerate(rises)]
    places += [(index + rng.uniform(0, _DUPLICATE_WITHIN), meant) for index, meant in rng.sample(places, again)]
    places += [(rng.uniform(0, len(rises)), _bad(rng, load, f"{name}-bad{number}")) for number in range(bad)]
    return [meant for _, meant in sorted(places, key=lambda place: place[0])]


def by_slot(meant: Iterable[Meant]) -> dict[Slot, list[Meant]]:
    """Return the records of each partition, in order, as Kafka's own partitioner distributes them."""
    slots: dict[Slot, list[Meant]] = {}
    partitions: dict[int, int] = {}
    for one in meant:
        if one.user not in partitions:
            partitions[one.user] = (murmur2(str(one.user).encode()) & 0x7FFFFFFF) % PARTITIONS
        slots.setdefault((TOPIC[one.kind], partitions[one.user]), []).append(one)
    return slots


def encode(slots: dict[Slot, list[Meant]]) -> dict[Slot, list[ConsumerRecord]]:
    """Return the records to publish, written by the contract's own code."""
    return {slot: [as_record(one, -1, slot[1]) for one in meant] for slot, meant in slots.items()}


def _rises(load: Load, count: int, name: str, rng: Random) -> list[Meant]:
    """Return events of pairs that climb level by level to their top. Some events swap places with the one before."""
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    rises: list[Meant] = []
    tops: dict[tuple[str, Pair], tuple[int, int]] = {}
    while len(rises) < count:
        kind, user = rng.choice(load.kinds), rng.randint(1, load.users)
        pair = (user, rng.choice(_SPECIALIZATIONS))
        level, before = tops.get((kind, pair), (0, -1))
        if level == MAXIMUM[pair[1]]:
            level, before = rng.randrange(level), -1  # a late event, which the row is ahead of
        at = begin + timedelta(milliseconds=len(rises))
        rises.append(Meant(kind, *pair, level + 1, at, "/load", f"{name}{len(rises)}"))
        if before >= 0 and rng.random() < load.out_of_order:
            rises[before], rises[-1] = rises[-1], rises[before]
        tops[kind, pair] = (max(level + 1, tops.get((kind, pair), (0, -1))[0]), len(rises) - 1)
    return rises


def _bad(rng: Random, load: Load, name: str) -> Meant:
    """Return a record that can never apply, for one of the contract's reasons."""
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    fine = Meant(rng.choice(load.kinds), rng.randint(1, load.users), "PLAYER", 3, at, "/load", name)
    changes: Sequence[dict[str, object]] = (
        {"bad": "malformed"},
        {"bad": "invalid"},
        {"user": NO_USER},
        {"specialization": "WIZARD"},
        {"to_level": 9},
    )
    return replace(fine, **rng.choice(changes))  # type: ignore[arg-type]
