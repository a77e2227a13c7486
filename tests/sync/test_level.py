"""`set_level` decides a pair that no direction can repair (law 8)."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.sync import LevelOutOfRange, UnknownUser
from service.sync import ProgressLicenseSyncService as Service
from tests.support.applier import Partitions, one
from tests.support.model import ADVANCED
from tests.support.tables import PLAYER, everything, execute, fill, history, licenses, progress, read


@pytest.fixture
def service(engine: AsyncEngine) -> Service:
    return Service(engine)


@pytest.mark.parametrize(
    ("progress_level", "license_level", "level"),
    [(2, 3, 5), (5, 5, 2), (None, 2, 4), (0, 2, 4), (9, 8, 8), (2, 6, 4)],
)
async def test_both_rows_get_the_level(
    engine: AsyncEngine, service: Service, progress_level: int | None, license_level: int, level: int
) -> None:
    await fill(engine, progress={PLAYER: progress_level}, licenses={PLAYER: license_level})
    answer = (await service.set_level(1, "player", level, 2)).as_dict()
    assert (answer["success"], answer["action"], answer["synced"]) == (True, "updated", True)
    assert await licenses(engine) == await progress(engine) == {PLAYER: level}
    steps = [(a, b) for _, a, b, _, _ in await history(engine)]
    assert steps == ([] if license_level == level else [(license_level, level)])
    assert [row[:2] for row in (await everything(engine))["levelsync.fences"]] == [PLAYER]


async def test_missing_rows_are_created(engine: AsyncEngine, service: Service) -> None:
    await fill(engine)
    assert (await service.set_level(1, "PLAYER", 3)).action == "created"
    assert await licenses(engine) == await progress(engine) == {PLAYER: 3}
    sent = [json.loads(row.value) for row in await read(engine, "SELECT value FROM levelsync.outbox ORDER BY id")]
    told = [(event["target"], event.get("old_level"), event["new_level"]) for event in sent]
    assert told == [("progress", None, 3), ("license", None, 3)]


async def test_a_level_of_both_rows_is_not_written_again(engine: AsyncEngine, service: Service) -> None:
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 3})
    before = await everything(engine)
    result = await service.set_level(1, "PLAYER", 3)
    assert (result.success, result.action, result.message) == (True, "none", "Already in sync")
    after = await everything(engine)
    assert [row[:2] for row in after.pop("levelsync.fences")] == [PLAYER]
    assert after == {table: rows for table, rows in before.items() if table != "levelsync.fences"}


async def test_events_before_the_decision_are_superseded(engine: AsyncEngine, service: Service) -> None:
    """Law 2: the older event would have raised the NULL."""
    await fill(engine, progress={PLAYER: None}, licenses={PLAYER: 2})
    await service.set_level(1, "PLAYER", 2)
    partitions = await Partitions(engine).begin()
    late = await partitions.apply(ADVANCED, partitions.records([one(ADVANCED, 5)]))
    assert list(late.outcomes.values()) == ["superseded"]
    assert await progress(engine) == {PLAYER: 2}


@pytest.mark.parametrize("level", [0, 9, -1, 2**40])
async def test_a_level_that_the_specialization_lacks_is_refused(
    engine: AsyncEngine, service: Service, level: int
) -> None:
    await fill(engine, progress={PLAYER: 2})
    before = await everything(engine)
    with pytest.raises(LevelOutOfRange, match=f"level {level} is outside 1 to 8"):
        await service.set_level(1, "PLAYER", level)
    with pytest.raises(UnknownUser):
        await service.set_level(9999, "PLAYER", 2)
    assert await everything(engine) == before


async def test_a_license_in_another_case_gets_its_name(engine: AsyncEngine, service: Service) -> None:
    """It keeps its id and its history, even where its level is right already."""
    await fill(engine, progress={PLAYER: 2, (2, "PLAYER"): 4}, licenses={(1, "player"): 2, (2, "Player"): 3})
    results = [await service.set_level(1, "PLAYER", 2), await service.set_level(2, "PLAYER", 4)]
    assert [result.action for result in results] == ["updated", "updated"]
    assert all("now written PLAYER" in result.message for result in results)
    assert await licenses(engine) == {PLAYER: 2, (2, "PLAYER"): 4}
    assert [(pair, a, b) for pair, a, b, _, _ in await history(engine)] == [((2, "PLAYER"), 3, 4)]


async def test_a_duplicate_beside_the_license_is_named_and_left(engine: AsyncEngine, service: Service) -> None:
    """Other tables may refer to it, so a person must remove it."""
    await fill(engine, progress={PLAYER: 2}, licenses={PLAYER: 2, (1, "player"): 6})
    (other,) = await read(engine, "SELECT id FROM user_licenses WHERE specialization_type = 'player'")
    result = await service.set_level(1, "PLAYER", 3)
    assert f"license {other.id} (player) is left as it is" in result.message
    assert await licenses(engine) == {PLAYER: 3, (1, "player"): 6}


async def test_nothing_is_half_written_where_the_license_is_refused(engine: AsyncEngine, service: Service) -> None:
    """The progress was written first. Its level, the fence and the event are undone with the license."""
    await fill(engine, progress={PLAYER: 6}, licenses={PLAYER: 6})
    await execute(engine, "ALTER TABLE user_licenses ADD CONSTRAINT no_two CHECK (current_level <> 2)")
    before = await everything(engine)
    result = await service.set_level(1, "PLAYER", 2)
    assert (result.failed, "no_two" in result.message) == (True, True)
    assert await everything(engine) == before
