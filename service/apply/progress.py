"""How far a batch has got, what is set aside, and refusals in a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from aiokafka import ConsumerRecord, TopicPartition

from service.core.outcomes import DeadLetter, LevelEvent, Outcome
from service.faults import Fault, InstallationFault
from service.stream.positions import Batch

REFUSALS_IN_A_ROW = 20


class RefusedAll(InstallationFault):
    """The records of twenty users in a row were refused for the same reason."""


@dataclass(slots=True)
class Refusals:
    """The users whose records the database refused in a row for one reason (SQLSTATE and constraint)."""

    why: tuple[str, str] = ("", "")
    users: set[int] = field(default_factory=set)

    def accepted(self) -> None:
        """The database took a record: the row of refusals is broken."""
        self.users = set()

    def refused(self, user_id: int, fault: Fault) -> None:
        """Count one refusal.

        Raises:
            RefusedAll: it is the twentieth user's in a row.
        """
        why = (fault.sqlstate, fault.constraint)
        if why != self.why:
            self.why, self.users = why, set()
        self.users = self.users | {user_id}
        if len(self.users) >= REFUSALS_IN_A_ROW:
            raise RefusedAll(
                f"PostgreSQL refused the records of {len(self.users)} users in a row (SQLSTATE {fault.sqlstate}"
                f"{', constraint ' + fault.constraint if fault.constraint else ''}): {fault.message}"
            )

    def copy(self) -> Refusals:
        """A copy to count on inside a transaction that may be rolled back."""
        return Refusals(self.why, self.users)


Item = LevelEvent | DeadLetter
"""A record as it was decoded: an event, or why it is none."""
MOST_SET_ASIDE = 4
"""Held pairs after which the first is waited for before others are tried: a whole table may be locked."""


class Way(StrEnum):
    """How a call applies its events (`levels_v1.sql`)."""

    QUICK = "quick"
    """The call is its own transaction. It moves the positions, and does nothing where dead letters are concerned."""
    WHOLE = "whole"
    """In a transaction that also writes dead letters."""
    CAREFUL = "careful"
    """Record by record: one that the database refuses is left out."""
    WAITING = "waiting"
    """As careful, for one pair whose rows somebody else holds: wait for them."""


@dataclass(slots=True)
class Work:
    """One batch while it is applied, over any number of transactions and attempts."""

    batch: Batch
    claims: Mapping[int, int]
    """Records that say to be replays: the letter's id by the record's index."""
    items: dict[int, Item] = field(default_factory=dict)
    """What is not settled yet, by its record's index, in the order of the records."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    expected: dict[TopicPartition, int] = field(default_factory=dict)
    way: Way = Way.WHOLE
    most_pairs: int = 1_000_000
    """Pairs of the next transaction at most: halved where one waits for a lock, until the held pair stands alone."""
    conflicts: int = 0
    set_aside: dict[object, list[int]] = field(default_factory=dict)
    """Records of pairs that somebody else holds, by pair."""
    suspicious: dict[int, DeadLetter] = field(default_factory=dict)
    """Refusals that may be the beginning of twenty users in a row: kept back until the database accepts a record."""

    counted: Refusals = field(default_factory=Refusals)
    """The refusals in a row, those that are kept back among them."""

    def receive(self, decoded: Iterable[Item], refusals: Refusals) -> None:
        """Begin an attempt with what was decoded: what is settled stays so."""
        self.items = {item.index: item for item in decoded if item.index not in self.outcomes}
        self.set_aside, self.suspicious, self.conflicts, self.counted = {}, {}, 0, refusals.copy()
        if not self.expected:
            self.expected = dict(self.batch.expected)

    def next_part(self, size: int) -> list[Item]:
        """Choose what the next transaction tries: all, or the first of the records where that did not do."""
        waiting = {index for indexes in self.set_aside.values() for index in indexes}
        waiting |= self.suspicious.keys()
        items = [item for item in self.items.values() if item.index not in waiting]
        if self.way is Way.CAREFUL:
            items = items[:size]
        if len(items) <= self.most_pairs:
            return items
        pairs = dict.fromkeys(map(pair_of, items))
        chosen = set(list(pairs)[: self.most_pairs])
        return [item for item in items if pair_of(item) in chosen]

    def next_positions(self, settling: Collection[int]) -> dict[TopicPartition, int]:
        """Return where positions stand once these records are settled: at the first of each partition that is not."""
        moved = dict(self.batch.positions)
        for index in sorted(self.items.keys() - settling, reverse=True):
            moved[self.partition_of(index)] = self.batch.records[index].offset
        return moved

    def settle(
        self, outcomes: Mapping[int, Outcome], letters: Sequence[DeadLetter], positions: Mapping[TopicPartition, int]
    ) -> None:
        """Note what a transaction has committed."""
        self.outcomes |= outcomes
        self.letters += letters
        for index in outcomes:
            self.items.pop(index, None)
            self.suspicious.pop(index, None)
        self.expected |= {tp: max(at, self.expected[tp]) for tp, at in positions.items() if tp in self.expected}
        self.most_pairs = max(self.most_pairs * 2, 2)

    def try_less(self, part: Sequence[Item]) -> None:
        """Let the next part have half of the pairs; where it is one pair, that is the one which is held."""
        pairs = len(set(map(pair_of, part)))
        if pairs == 1:
            self.hold(part)
        else:
            self.most_pairs = pairs // 2

    def first_held(self) -> list[Item]:
        """Choose the pair to wait for; the others are tried again when it is through."""
        indexes = next(iter(self.set_aside.values()))
        self.set_aside = {}
        return [self.items[index] for index in indexes]

    def rest(self) -> list[Batch]:
        """Return what is not settled: a batch for each partition, which its position row does not pass."""
        left: dict[TopicPartition, list[ConsumerRecord]] = {}
        for index in sorted(self.items):
            left.setdefault(self.partition_of(index), []).append(self.batch.records[index])
        topic_ids, epochs = self.batch.topic_ids, self.batch.leader_epochs
        return [
            Batch(records, {tp: self.expected[tp]}, {tp: self.batch.positions[tp]}, topic_ids, epochs)
            for tp, records in left.items()
        ]

    def claims_of(self, part: Iterable[Item]) -> dict[int, int]:
        """Return the claims of a part's records."""
        return {item.index: self.claims[item.index] for item in part if item.index in self.claims}

    def partition_of(self, index: int) -> TopicPartition:
        """Return the partition of a record."""
        record = self.batch.records[index]
        return TopicPartition(record.topic, record.partition)

    def user_of(self, index: int) -> int:
        """Return whose event a record is."""
        item = self.items[index]
        return item.user_id if isinstance(item, LevelEvent) else 0

    def hold(self, items: Iterable[Item]) -> None:
        """Set pairs aside that somebody else holds."""
        for item in items:
            self.set_aside.setdefault(pair_of(item), []).append(item.index)


def pair_of(item: Item) -> object:
    """Return what an item waits for: its pair; a record that is not an event waits for nothing."""
    return (item.user_id, item.specialization) if isinstance(item, LevelEvent) else None
