"""What was published, and whether the tables are the model's, for tests that run `levelsync serve`.

Law 3 can be checked at any moment: levels, history and dead letters are together exactly what the records below
`applied_offsets` mean, because all of it is one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.store.engine import make_engine
from tests.support import topics
from tests.support.load import Slot, by_slot, encode
from tests.support.model import Meant, Model, Pair
from tests.support.records import MAXIMUM, as_record
from tests.support.tables import become_owner, count, empty_tables, history, licenses, progress, read
from tests.support.topics import fill
from tests.support.waiting import eventually

_USERS = """
    INSERT INTO public.users (id, name, email)
    SELECT id, 'User ' || id, 'load' || id || '@example.org' FROM generate_series(1, :users) AS id
    ON CONFLICT (id) DO NOTHING
"""
_FENCE = "INSERT INTO levelsync.fences VALUES (:user, :name, :at, 1, 'test')"
_BUSY = "pg_stat_activity WHERE datname = current_database() AND application_name = 'levelsync'"
_LETTERS = 'SELECT topic, partition, "offset", reason, value FROM levelsync.dead_letters'
Letter = tuple[str, int, int]


@dataclass
class Setup:
    """One service's database and the records of its topics. It begins with empty tables and empty topics."""

    settings: Settings
    users: int
    fences: Mapping[Pair, datetime] = field(default_factory=dict)
    """Decisions made before the first record was applied (law 2)."""
    slots: dict[Slot, list[Meant]] = field(default_factory=dict)
    went_back: bool = False
    """The database was restored, and has not caught up since: what Kafka knows is ahead of it."""

    async def __aenter__(self) -> Setup:
        self.engine = _engine(self.settings)
        await empty_tables(self.engine)
        fences = [{"user": user, "name": name, "at": at} for (user, name), at in self.fences.items()]
        async with self.engine.begin() as conn:
            await become_owner(conn)
            await conn.execute(text(_USERS), {"users": self.users})
            if fences:
                await conn.execute(text(_FENCE), fences)
        return self

    async def move_to(self, settings: Settings) -> None:
        """Use another database from now on."""
        await self.engine.dispose()
        self.settings, self.engine = settings, _engine(settings)

    async def __aexit__(self, *error: object) -> None:
        await self.engine.dispose()

    async def publish(self, meant: Sequence[Meant]) -> None:
        """Publish the records in order, after those before them."""
        slots = by_slot(meant)
        for slot, records in slots.items():  # first, because they may be applied before the broker answers
            self.slots.setdefault(slot, []).extend(records)
        if slots:
            await fill(self.settings.kafka_bootstrap_servers, encode(slots))

    @property
    def group(self) -> tuple[str, str]:
        """The address of the broker, and the consumer group there."""
        return self.settings.kafka_bootstrap_servers, self.settings.kafka_group_id

    @property
    def published(self) -> int:
        """How many records the topics contain, or soon will."""
        return sum(map(len, self.slots.values()))

    async def positions(self) -> dict[Slot, int]:
        """Return `applied_offsets`, 0 where a row is missing."""
        rows = await read(self.engine, "SELECT topic, partition, next_offset FROM levelsync.applied_offsets")
        found = {(row[0], row[1]): int(row[2]) for row in rows}
        return {slot: found.get(slot, 0) for slot in self.slots}

    async def applied(self) -> int:
        return sum((await self.positions()).values())

    async def wait_applied(self, records: int, timeout: float = 60) -> None:  # noqa: ASYNC109 - a test's own bound
        async def reached() -> bool:
            applied = await self.applied()
            assert applied >= records, f"{applied} of {records} records are applied"
            return True

        await eventually(reached, timeout)

    async def assert_ended(self, timeout: float = 60) -> None:  # noqa: ASYNC109 - a test's own bound
        """Wait until every record is applied, and compare the tables with the model."""
        await self.wait_applied(self.published, timeout)
        self.went_back = False
        await self.assert_consistent()

    async def assert_consistent(self) -> None:
        """Compare tables, history and dead letters with the records below `applied_offsets` (laws 1, 3 and 4).

        No process may write during the comparison.
        """
        below = {slot: self.slots[slot][:at] for slot, at in (await self.positions()).items()}
        model = Model(MAXIMUM, set(range(1, self.users + 1)), fences=dict(self.fences))
        for meant in below.values():
            for one in meant:
                model.apply(one)
        assert_same("licenses", (await licenses(self.engine)).items(), model.licenses.items())
        assert_same("progress", (await progress(self.engine)).items(), model.progress.items())
        assert_same("history", _numbered(await history(self.engine)), _numbered(model.history))
        assert_same("dead letters", (await self.letters()).items(), _letters(below, model).items())

    async def assert_nothing_half_done(self) -> None:
        """Check after a `kill -9` that law 3 holds, and that no commit in Kafka is ahead of PostgreSQL."""
        await eventually(self._nobody_writes)  # PostgreSQL may still commit the last transaction
        await self.assert_consistent()
        if self.went_back:
            return
        applied = await self.positions()
        committed = await topics.committed(*self.group)
        ahead = {tp: at for tp, at in committed.items() if at > applied.get((tp.topic, tp.partition), 0)}
        assert not ahead, f"committed to Kafka, but not applied: {ahead}; applied: {applied}"

    async def letters(self) -> dict[Letter, tuple[str, Any]]:
        """Return reason and raw value of every dead letter, by topic, partition and offset."""
        rows = await read(self.engine, _LETTERS)
        found = {(row[0], row[1], row[2]): (row[3], row[4]) for row in rows}
        assert len(found) == len(rows), "a record is a dead letter twice"
        return found

    async def _nobody_writes(self) -> bool:
        return not await count(self.engine, _BUSY)


def _engine(settings: Settings) -> AsyncEngine:
    """Return an engine that survives a server's restart and is not counted among the service's connections."""
    return make_engine(settings, pool_size=10, pool_pre_ping=True, bounds={"application_name": "levelsync tests"})


def assert_same(what: str, found: Collection[Any], expected: Collection[Any]) -> None:
    """Assert that two collections have the same elements, each as often. The message has the first few differences."""
    here, there = Counter(found), Counter(expected)
    surplus, missing = list((here - there).elements()), list((there - here).elements())
    assert not surplus and not missing, (  # noqa: PT018 - one sentence about both
        f"{what}: {len(surplus)} wrong, such as {sorted(surplus)[:3]}; "
        f"{len(missing)} missing, such as {sorted(missing)[:3]}"
    )


def _numbered(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Add to each row its place in its pair's history, because the order counts."""
    seen: Counter[Any] = Counter()
    numbered = []
    for row in rows:
        seen[row[0]] += 1
        numbered.append((*row, seen[row[0]]))
    return numbered


def _letters(slots: Mapping[Slot, Sequence[Meant]], model: Model) -> dict[Letter, tuple[str, Any]]:
    return {
        (*slot, offset): (model.letters[one.id], as_record(one, offset).value)
        for slot, meant in slots.items()
        for offset, one in enumerate(meant)
        if one.id in model.letters
    }
