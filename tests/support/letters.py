"""Dead letters of a batch, their replays from the outbox, and the batches that read those."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.dead_letters.select import Selection
from service.dead_letters.write import replay
from service.outbox.relay import HeldBack, read_batch
from tests.support.applier import Partitions, fresh, one
from tests.support.model import LEVELED_UP
from tests.support.records import START
from tests.support.tables import execute, read

NOBODY = 500
"""No user has this id until a test creates one."""
ALL = Selection()
_LATER = itertools.count(int(START.timestamp() * 1000) + 86_400_000, 1000)
_LETTERS = """
    SELECT id, CASE WHEN resolved_at IS NULL THEN 'open' ELSE 'resolved' END AS state, resolution, attempts, reason
      FROM levelsync.dead_letters ORDER BY id
"""


class Setup:
    """One partition of each topic of events, and its reader."""

    def __init__(self, engine: AsyncEngine, partitions: Partitions) -> None:
        self.engine = engine
        self.partitions = partitions

    @classmethod
    async def begin(cls, engine: AsyncEngine) -> Setup:
        """Begin without a level, a dead letter or a record in the outbox."""
        setup = cls(engine, await fresh(engine))
        await setup.run("TRUNCATE levelsync.outbox", "TRUNCATE levelsync.dead_letters RESTART IDENTITY")
        return setup

    async def letters_of(self, *users: int, **changes: Any) -> list[ConsumerRecord]:
        """Read one record of each user. Those that cannot apply become dead letters."""
        meant = [one(user=user, minutes=number, **changes) for number, user in enumerate(users)]
        return await self.read(self.partitions.records(meant))

    async def read(self, records: Sequence[ConsumerRecord]) -> list[ConsumerRecord]:
        """Read records as one batch."""
        await self.partitions.apply(LEVELED_UP, list(records))
        return list(records)

    async def send(self, selection: Selection = ALL, by: str = "somebody") -> list[int]:
        """Replay dead letters; returns the ids of those that were sent."""
        return [letter for batch in [ids async for ids in replay(self.engine, selection, by)] for letter in batch]

    async def on_their_way(self) -> list[ConsumerRecord]:
        """Take what the relay would publish; returns the records, with later times."""
        async with self.engine.begin() as conn:
            rows = await read_batch(conn, HeldBack())
            await conn.execute(text("DELETE FROM levelsync.outbox"))
        records = []
        for row in rows:
            sizes = (len(row.key or b""), len(row.value or b""))
            at = self.next_offset(), next(_LATER)
            records.append(ConsumerRecord(row.topic, 0, *at, 0, row.key, row.value, None, *sizes, tuple(row.headers)))
        return records

    def next_offset(self) -> int:
        """Return the offset of the topic's next record."""
        self.partitions.ends[LEVELED_UP] += 1
        return self.partitions.ends[LEVELED_UP] - 1

    async def come_back(self) -> list[ConsumerRecord]:
        """Read the records that a replay has sent."""
        return await self.read(await self.on_their_way())

    async def letters(self) -> list[tuple[Any, ...]]:
        """Return each dead letter: id, open or resolved, resolution, attempts, reason."""
        return await self.rows(_LETTERS)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await read(self.engine, query)]

    async def run(self, *statements: str) -> None:
        """Run statements in one transaction as the database's owner."""
        await execute(self.engine, *statements)

    async def make_user(self, user: int = NOBODY) -> None:
        await self.run(f"INSERT INTO users (id, name, email) VALUES ({user}, 'New', 'new{user}@example.org')")

    async def a_minute_later(self) -> None:
        """Age every replay that was sent by a minute."""
        await self.run("UPDATE levelsync.dead_letters SET replayed_at = replayed_at - interval '61 seconds'")


def changed(record: ConsumerRecord, **data: Any) -> ConsumerRecord:
    """Return the same record with other data."""
    return replace(record, value=json.dumps(json.loads(record.value) | data).encode())


ODD = [("a", None), ("a", b"\xff\x00"), ("", b""), ("no\0text", b"\0"), ("é", "é".encode()), ("a", b"twice")]
