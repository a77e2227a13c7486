"""A process that starts: its groups, its members and its positions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from structlog.testing import capture_logs

from service.apply import role
from service.apply.role import one_joins_first, request_reconcile, running_broker
from service.process import runtime, startup
from service.process.runtime import Service
from service.settings import Settings
from service.stream.positions import DatabasePositionStore, set_position
from service.telemetry import metrics
from service.telemetry.health import Health


@pytest.mark.usefixtures("topics")
async def test_both_groups_are_joined_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker delays each new group by three seconds. Joined one after the other, the start took twice as long."""
    meeting = asyncio.Barrier(2)

    @asynccontextmanager
    async def meets_the_other(*_given: Any) -> AsyncIterator[Callable[[], list[object]]]:
        await meeting.wait()
        yield list

    monkeypatch.setattr(runtime, "apply_role", meets_the_other)
    monkeypatch.setattr(runtime, "reconcile_role", meets_the_other)
    async with Service(settings, frozenset({"apply", "reconcile"})) as service:
        await asyncio.wait_for(service.ready(), 20)


class Joins:
    """A subscriber, or a broker of some. `joined` records who asked for the group and who is in it, in order."""

    def __init__(self, name: str, joined: list[str]) -> None:
        self.name, self.joined, self.consumer = name, joined, None

    async def start(self) -> None:
        self.joined.append(f"{self.name} asks")
        await asyncio.sleep(0)
        self.joined.append(f"{self.name} is in")

    async def connect(self) -> None:
        """Do nothing."""

    stop = connect


@pytest.mark.parametrize(
    ("one_first", "order"),
    [
        (True, ["a asks", "a is in", "b asks", "c asks", "b is in", "c is in"]),
        (False, ["a asks", "b asks", "c asks", "a is in", "b is in", "c is in"]),
    ],
)
async def test_one_member_joins_before_the_others_or_all_join_at_once(one_first: bool, order: list[str]) -> None:
    """Kafka waits three seconds for more members, and three more for each that joins."""
    joined: list[str] = []
    subscribers = [Joins(name, joined) for name in "abc"]
    broker: Any = Joins("broker", joined)
    may_read = asyncio.Event()
    async with running_broker(broker, subscribers, Health(), may_read, one_first=one_first):
        assert joined == order
        assert may_read.is_set()


class JoinsLast(Joins):
    """A subscriber whose start waits until it is released."""

    def __init__(self) -> None:
        super().__init__("last", [])
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        self.asked.set()
        await self.released.wait()


@pytest.mark.parametrize(("longest", "reads_before"), [(60.0, False), (0.0, True)])
async def test_no_member_reads_before_all_have_tried_to_join(
    monkeypatch: pytest.MonkeyPatch, longest: float, reads_before: bool
) -> None:
    """A rebalance would interrupt the first batches. A start that takes too long does not stop the others."""
    monkeypatch.setattr(role, "LONGEST_JOIN", longest)
    last, may_read, seen = JoinsLast(), asyncio.Event(), asyncio.Event()

    async def start() -> None:
        async with running_broker(Joins("broker", []), [Joins("a", []), last], Health(), may_read):  # type: ignore[arg-type]
            seen.set()

    task = asyncio.create_task(start())
    await last.asked.wait()
    if reads_before:
        await may_read.wait()
    assert (may_read.is_set(), seen.is_set()) == (reads_before, False)
    last.released.set()
    await task
    assert may_read.is_set()


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (
            IncompatibleBrokerVersion("it is old"),
            {"error": "IncompatibleBrokerVersion: IncompatibleBrokerVersion: it is old"},
        ),
        (([], ["license.advanced"]), {"topics": ["license.advanced"]}),
    ],
    ids=["no answer", "no right"],
)
async def test_policies_that_cannot_be_read_are_logged_and_do_not_stop_the_start(
    answer: Any, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(_env_file=None, database_url="postgresql://localhost/d")
    monkeypatch.setattr(startup, "compacted_topics", AsyncMock(side_effect=[answer]))
    with capture_logs() as lines:
        assert await startup._compacted(settings) == []
    event = "cannot read whether topics are compacted"
    assert lines == [{"event": event, "log_level": "info", **fields}]


PARTITION = TopicPartition("progress.leveled-up", 0)
Offsets = dict[TopicPartition, int]


async def move_row(engine: AsyncEngine, offset: int, cluster: str = "here") -> None:
    async with engine.begin() as conn:
        await set_position(conn, PARTITION, offset, cluster)


async def test_one_member_joins_first_where_a_real_cluster_has_no_positions(database: AsyncEngine) -> None:
    """Positions of another cluster do not count. A database that does not answer decides nothing."""

    async def joins_first(cluster: str, engine: AsyncEngine = database) -> bool:
        return await one_joins_first(DatabasePositionStore(engine, cluster, request_reconcile))

    assert await joins_first("here")
    assert not await joins_first("levelsync-embedded-7a11")
    await move_row(database, 7, "elsewhere")
    assert await joins_first("here")
    assert not await joins_first("elsewhere")
    assert not await joins_first("here", create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none"))


async def test_a_loss_is_counted_when_it_is_committed(engine: AsyncEngine) -> None:
    await move_row(engine, 10)
    lost = metrics.RECORDS_LOST.labels(PARTITION.topic, "0")
    before = lost._value.get()

    async def fails(*_given: Any) -> None:
        raise ConnectionError("PostgreSQL went away")

    async def end() -> Offsets:
        return {PARTITION: 50}

    with pytest.raises(ConnectionError):
        await DatabasePositionStore(engine, "here", fails).start({PARTITION: 10}, {PARTITION: 30}, end)
    assert lost._value.get() == before
    for _ in range(2):
        await DatabasePositionStore(engine, "here", request_reconcile).start({PARTITION: 10}, {PARTITION: 30}, end)
    assert lost._value.get() == before + 20
