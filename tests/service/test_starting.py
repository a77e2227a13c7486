"""How the roles of a process start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.apply.lost import ask_for_reconcile
from service.apply.role import running_broker
from service.process import runtime
from service.process.runtime import Service
from service.settings import Settings
from service.stream.positions import DatabaseKeeper
from service.telemetry.health import Health
from tests.support import applying as stage


@pytest.mark.usefixtures("topics")
async def test_both_groups_are_joined_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker lets each new group wait for three seconds: one after the other, the start took twice as long."""
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
    """A subscriber, and a broker of some: `joined` says who is in the group, in which order."""

    def __init__(self, name: str, joined: list[str]) -> None:
        self.name, self.joined, self.consumer = name, joined, None

    async def start(self) -> None:
        """Join, as slowly as a new group lets its first member."""
        self.joined.append(f"{self.name} asks")
        await asyncio.sleep(0)
        self.joined.append(f"{self.name} is in")

    async def connect(self) -> None:
        """Do nothing."""

    stop = connect


@pytest.mark.parametrize(
    ("new_group", "order"),
    [
        (True, ["a asks", "a is in", "b asks", "c asks", "b is in", "c is in"]),
        (False, ["a asks", "b asks", "c asks", "a is in", "b is in", "c is in"]),
    ],
)
async def test_the_first_member_of_a_new_group_joins_alone(new_group: bool, order: list[str]) -> None:
    """Kafka waits three seconds for more members, and three more where one came: ten seconds until ready."""
    joined: list[str] = []
    subscribers = [Joins(name, joined) for name in "abc"]
    broker: Any = Joins("broker", joined)
    async with running_broker(broker, subscribers, Health(), new_group=new_group):
        assert joined == order


async def test_a_cluster_without_positions_has_new_groups(database: AsyncEngine) -> None:
    """The positions of another cluster say nothing about it; a database that does not answer decides nothing."""
    assert await DatabaseKeeper(database, "here", ask_for_reconcile).is_new()
    await stage.run(
        database,
        "INSERT INTO levelsync.applied_offsets (topic, partition, next_offset, cluster_id) "
        "VALUES ('progress.leveled-up', 0, 7, 'elsewhere')",
    )
    assert await DatabaseKeeper(database, "here", ask_for_reconcile).is_new()
    assert not await DatabaseKeeper(database, "elsewhere", ask_for_reconcile).is_new()
    nobody = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    assert not await DatabaseKeeper(nobody, "here", ask_for_reconcile).is_new()
