"""The progress of a batch that is applied in parts, the pairs that are set aside, and refusals in a row."""

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
    """PostgreSQL refused the records of twenty users in a row for the same reason."""


@dataclass(slots=True)
class Refusals:
    """The users whose records the database refused in a row for one reason (SQLSTATE and constraint)."""

    why: tuple[str, str] = ("", "")
    users: set[int] = field(default_factory=set)

    def accepted(self) -> None:
        """Start counting again, because the database accepted a record."""
        self.users = set()

    def refused(self, user_id: int, fault: Fault) -> None:
        """Count one refusal.

        Raises:
            RefusedAll: this is the twentieth user in a row.
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
        """Return a copy for counting in a transaction that may be rolled back."""
        return Refusals(self.why, self.users)


Item = LevelEvent | DeadLetter
"""A decoded record: an event, or a dead letter with the reason why the record is not one."""
MAX_SET_ASIDE = 4
"""Number of held pairs at which the batch waits for the first one. The whole table may be locked, so further attempts
would only find more held pairs.
"""


class Way(StrEnum):
    """The way in which a call applies its events (`levels_v1.sql`)."""

    QUICK = "quick"
    """The call is its own transaction and moves the positions. It does nothing when there are dead letters to write."""
    WHOLE = "whole"
    """All events together, in a transaction that also writes dead letters."""
    CAREFUL = "careful"
    """Record by record. A record that the database refuses is left out."""
    WAITING = "waiting"
    """Record by record for one held pair, waiting for its locks."""


@dataclass(slots=True)
class BatchWork:
    """One batch while it is applied, in any number of transactions and attempts."""

    batch: Batch
    claims: Mapping[int, int]
    """The letter ids that records claim to replay, by the record's index."""
    items: dict[int, Item] = field(default_factory=dict)
    """The records that are not settled yet, by index, in their order."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    expected: dict[TopicPartition, int] = field(default_factory=dict)
    way: Way = Way.WHOLE
    most_pairs: int = 1_000_000
    """Maximum number of pairs in the next transaction. It is halved while one of them is held, until that is alone."""
    conflicts: int = 0
    set_aside: dict[object, list[int]] = field(default_factory=dict)
    """The indexes of the records of held pairs, by pair."""
    suspicious: dict[int, DeadLetter] = field(default_factory=dict)
    """Refusals that may begin a row of twenty users. They wait for an accepted record or the batch's end."""

    counted: Refusals = field(default_factory=Refusals)
    """The refusals in a row, including the suspicious ones."""

    def receive(self, decoded: Iterable[Item], refusals: Refusals) -> None:
        """Begin an attempt with the decoded records. Settled records stay settled."""
        self.items = {item.index: item for item in decoded if item.index not in self.outcomes}
        self.set_aside, self.suspicious, self.conflicts, self.counted = {}, {}, 0, refusals.copy()
        if not self.expected:
            self.expected = dict(self.batch.expected)

    def next_part(self, size: int) -> list[Item]:
        """Choose the records of the next transaction: all, or the first ones after a failure."""
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
        """Return each partition's position after these records are settled: its first record that is not settled."""
        moved = dict(self.batch.positions)
        for index in sorted(self.items.keys() - settling, reverse=True):
            moved[self.partition_of(index)] = self.batch.records[index].offset
        return moved

    def settle(
        self, outcomes: Mapping[int, Outcome], letters: Sequence[DeadLetter], positions: Mapping[TopicPartition, int]
    ) -> None:
        """Record what a transaction has committed."""
        self.outcomes |= outcomes
        self.letters += letters
        for index in outcomes:
            self.items.pop(index, None)
            self.suspicious.pop(index, None)
        self.expected |= {tp: max(at, self.expected[tp]) for tp, at in positions.items() if tp in self.expected}
        self.most_pairs = max(self.most_pairs * 2, 2)

    def halve(self, part: Sequence[Item]) -> None:
        """Halve the pairs of the next part. A single pair is the held one, and is set aside."""
        pairs = len(set(map(pair_of, part)))
        if pairs == 1:
            self.put_aside(part)
        else:
            self.most_pairs = pairs // 2

    def first_held(self) -> list[Item]:
        """Choose the pair to wait for. The other held pairs are retried after it."""
        indexes = next(iter(self.set_aside.values()))
        self.set_aside = {}
        return [self.items[index] for index in indexes]

    def rest(self) -> list[Batch]:
        """Return the records that are not settled, as one batch for each partition."""
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
        """Return the user of a record's event, or 0 for a dead letter."""
        item = self.items[index]
        return item.user_id if isinstance(item, LevelEvent) else 0

    def put_aside(self, items: Iterable[Item]) -> None:
        """Set held pairs aside."""
        for item in items:
            self.set_aside.setdefault(pair_of(item), []).append(item.index)


def pair_of(item: Item) -> object:
    """Return the pair of an event, whose locks it may wait for. A dead letter has none."""
    return (item.user_id, item.specialization) if isinstance(item, LevelEvent) else None
