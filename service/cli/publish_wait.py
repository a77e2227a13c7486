"""The outcome of published records: wait until `levelsync.applied_offsets` has passed them, then read the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.cli.exits import Unreachable

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from aiokafka.structs import RecordMetadata
    from sqlalchemy.ext.asyncio import AsyncConnection

    from events import LicenseAdvanced, ProgressLeveledUp
    from service.settings import Settings

_LOOK_EVERY = 0.1
_POSITIONS = "SELECT topic, partition, next_offset, topic_id, cluster_id FROM levelsync.applied_offsets"
_LETTER = """
    SELECT id, reason, detail FROM levelsync.dead_letters
     WHERE topic = :topic AND partition = :partition AND "offset" = :offset AND record_timestamp = :timestamp
       AND value_digest = encode(sha256(:value), 'hex') AND resolution IS DISTINCT FROM 'replayed'
"""
_LETTERS = """
    SELECT "offset", reason FROM levelsync.dead_letters
     WHERE topic = :topic AND partition = :partition AND "offset" BETWEEN :first AND :last
       AND record_timestamp >= :earliest AND resolution IS DISTINCT FROM 'replayed'
"""
_HISTORY = """
    SELECT h.id, h.from_level, h.to_level, h.advanced_at, h.advancement_reason AS reason
      FROM license_progressions h JOIN user_licenses l ON l.id = h.user_license_id
     WHERE l.user_id = :user AND h.advancement_reason = :origin ORDER BY h.id
"""
_LEVELS = {
    "license": "SELECT current_level FROM user_licenses WHERE user_id = :user AND {name} ORDER BY id LIMIT 1",
    "progress": "SELECT current_level FROM specialization_progress WHERE student_id = :user AND {name} LIMIT 1",
}


@dataclass(slots=True)
class OffsetRanges:
    """Records that were sent to one partition: their ranges of offsets, and their earliest timestamp.

    The latest timestamp is not known: aiokafka gives every record of a batch the timestamp of the batch's first record.
    """

    ranges: list[tuple[int, int]] = field(default_factory=list)
    earliest: int = 2**63 - 1

    @property
    def last(self) -> int:
        """The highest offset."""
        return self.ranges[-1][1]

    def add(self, offset: int, timestamp: int) -> None:
        """Add a record. The records of one producer arrive in the order of their offsets."""
        if self.ranges and self.ranges[-1][1] == offset - 1:
            self.ranges[-1] = (self.ranges[-1][0], offset)
        else:
            self.ranges.append((offset, offset))
        self.earliest = min(self.earliest, timestamp)

    def has(self, offset: int) -> bool:
        """Return whether a record was sent to this offset."""
        return any(first <= offset <= last for first, last in self.ranges)


@dataclass(slots=True)
class Sent:
    """The records that were sent, by topic and partition. `topic_ids` were read before the first record."""

    cluster_id: str = ""
    topic_ids: dict[str, str] = field(default_factory=dict)
    by_partition: dict[tuple[str, int], OffsetRanges] = field(default_factory=dict)

    def add(self, places: Iterable[RecordMetadata]) -> None:
        """Add records that Kafka has confirmed."""
        for place in places:
            offsets = self.by_partition.setdefault((place.topic, place.partition), OffsetRanges())
            offsets.add(place.offset, place.timestamp)

    def in_words(self) -> str:
        """Return the last record of each partition, in words."""
        ends = ((topic, partition, offsets.last) for (topic, partition), offsets in sorted(self.by_partition.items()))
        return ", ".join(f"{topic} partition {partition} offset {last}" for topic, partition, last in ends)

    def is_read(self, rows: Iterable[Any]) -> bool:
        """Return whether the position rows have passed every record. Ignore rows of another topic or cluster."""
        reached = {
            (row.topic, row.partition): row.next_offset
            for row in rows
            if row.topic_id == self.topic_ids.get(row.topic, "") and row.cluster_id in {"", self.cluster_id}
        }
        return all(reached.get(where, 0) > offsets.last for where, offsets in self.by_partition.items())


@asynccontextmanager
async def following(settings: Settings, producer: AIOKafkaProducer, sent: Sent | None) -> AsyncIterator[None]:
    """Store in `sent` the ids of the cluster and of the topics to which the context sends records.

    Raises:
        Unreachable: a topic was deleted and created again in that time, so the records may be lost.
    """
    if sent is None:
        yield
        return
    from service.stream.connection import describe_cluster

    sent.topic_ids = await _topic_ids(producer)
    sent.cluster_id = (await describe_cluster(settings)).id
    yield
    if await _topic_ids(producer) != sent.topic_ids:
        raise Unreachable("A topic was created again while the command sent to it, so the outcome is unknown")


async def _topic_ids(producer: AIOKafkaProducer) -> dict[str, str]:
    from service.stream.lag import EVENT_TOPICS
    from service.stream.protocol import read_topic_ids

    return await read_topic_ids(producer.client, EVENT_TOPICS)


async def wait_until_read(conn: AsyncConnection, sent: Sent, seconds: float) -> None:
    """Wait until the appliers have read every record.

    Raises:
        Unreachable: they did not within `seconds`.
    """
    from sqlalchemy import text

    from service.stream.background import until

    async def look() -> bool | None:
        is_read = sent.is_read((await conn.execute(text(_POSITIONS))).all())
        await conn.rollback()
        return is_read or None

    if not await until(look, _LOOK_EVERY, seconds):
        raise Unreachable(
            f"No applier has read {sent.in_words()} within {seconds:g} s. Is a process with the role `apply` running "
            "(levelsync serve)? The records stay in Kafka, and the first applier will read them"
        )


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """The outcome of one record: its dead letter, or the history row that it wrote, or neither; and the level now."""

    dead_letter: dict[str, Any] | None
    history: dict[str, Any] | None
    level: int | None
    target: str
    """The row that the event raises: `license` or `progress`."""

    def in_words(self) -> str:
        """Return the outcome as one line."""
        if self.dead_letter is not None:
            one = self.dead_letter
            return f"dead letter {one['id']}: {one['reason']}: {one['detail']}. levelsync dead-letters show {one['id']}"
        if self.history is not None:
            row = self.history
            return f"history row {row['id']}: from level {row['from_level']} to {row['to_level']} ({row['reason']})"
        return f"read; the level is {self.level}" if self.level is not None else f"read; there is no {self.target}"


async def history_of(conn: AsyncConnection, event: ProgressLeveledUp | LicenseAdvanced) -> list[dict[str, Any]]:
    """Read the history rows that name this event, also those of its earlier records."""
    from sqlalchemy import text

    origin = f"{type(event).__name__} {event.source} {event.id}"
    rows = (await conn.execute(text(_HISTORY), {"user": event.user_id, "origin": origin})).mappings()
    return [dict(row) for row in rows]


async def outcome_of(
    conn: AsyncConnection,
    event: ProgressLeveledUp | LicenseAdvanced,
    place: RecordMetadata,
    before: list[dict[str, Any]],
) -> RecordOutcome:
    """Read the outcome of a record that an applier has read. `before` are the history rows of earlier records."""
    from sqlalchemy import text

    from events import ProgressLeveledUp
    from service.core.names import folded

    where = {"topic": place.topic, "partition": place.partition, "offset": place.offset, "timestamp": place.timestamp}
    letter = (await conn.execute(text(_LETTER), where | {"value": event.to_kafka().value})).mappings().one_or_none()
    known = {row["id"] for row in before}
    history = [row for row in await history_of(conn, event) if row["id"] not in known]
    target = "license" if isinstance(event, ProgressLeveledUp) else "progress"
    column = "specialization_type" if target == "license" else "specialization_id"
    query = _LEVELS[target].format(name=f"{folded(column)} = {folded(':name')}")
    level = await conn.scalar(text(query), {"user": event.user_id, "name": event.specialization})
    return RecordOutcome(None if letter is None else dict(letter), history[0] if history else None, level, target)


async def letters_of(conn: AsyncConnection, sent: Sent) -> dict[str, int]:
    """Count the dead letters among the records, by reason."""
    from sqlalchemy import text

    found: Counter[str] = Counter()
    for (topic, partition), offsets in sent.by_partition.items():
        values = {"topic": topic, "partition": partition, "first": offsets.ranges[0][0], "last": offsets.last}
        rows = await conn.execute(text(_LETTERS), values | {"earliest": offsets.earliest})
        found.update(row.reason for row in rows if offsets.has(row.offset))
    return dict(found)


async def expected_faults(conn: AsyncConnection, event: ProgressLeveledUp | LicenseAdvanced) -> list[str]:
    """Return the reasons why an event will become a dead letter in the current state of the database."""
    from sqlalchemy import text

    from service.levels import read_curriculum

    curriculum = await read_curriculum(conn)
    name = curriculum.canonical(event.specialization)
    found = []
    if name is None:
        found.append(f"there is no specialization {event.specialization}; there are {', '.join(curriculum.names)}")
    elif name in curriculum.levels and event.to_level > curriculum.levels[name]:
        found.append(f"{name} has the levels 1 to {curriculum.levels[name]}, not {event.to_level}")
    if await conn.scalar(text("SELECT count(*) FROM users WHERE id = :id"), {"id": event.user_id}) == 0:
        found.append(f"there is no user {event.user_id}")
    return found
