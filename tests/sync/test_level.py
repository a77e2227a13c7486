"""`set_level` decides a pair that no direction can repair (law 8)."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.sync import LevelOutOfRange, UnknownUser
from service.sync import ProgressLicenseSyncService as Service
from tests.support.applier import Partitions, one
from tests.support.model import ADVANCED
from tests.support.tables import PLAYER, everything, fill, licenses, of_players, progress, read, steps


async def test_both_rows_get_the_level_and_older_events_no_longer_raise_it(
    engine: AsyncEngine, service: Service
) -> None:
    """Law 2: an older event would have raised a NULL too."""
    progress_levels = of_players(2, 5, None, 0, 9, 2)
    license_levels = of_players(3, 5, 2, 2, 8, 6)
    decided = of_players(5, 2, 4, 4, 8, 4)
    await fill(engine, progress_levels, license_levels)
    for (user, _), level in decided.items():
        answer = (await service.set_level(user, "player", level, 2)).as_dict()
        assert (answer["success"], answer["action"], answer["synced"]) == (True, "updated", True), user
    assert await licenses(engine) == await progress(engine) == decided
    changed = [(*pair, license_levels[pair], level) for pair, level in decided.items() if license_levels[pair] != level]
    assert await steps(engine) == changed
    assert {row[:2] for row in (await everything(engine))["levelsync.fences"]} == set(decided)
    partitions = await Partitions(engine).begin()
    late = await partitions.apply(ADVANCED, partitions.records([one(ADVANCED, 8, user=user) for user, _ in decided]))
    assert set(late.outcomes.values()) == {"superseded"}
    assert await progress(engine) == decided


async def test_missing_rows_are_created(engine: AsyncEngine, service: Service) -> None:
    await fill(engine)
    assert (await service.set_level(1, "PLAYER", 3)).action == "created"
    assert await licenses(engine) == await progress(engine) == {PLAYER: 3}
    sent = [json.loads(row.value) for row in await read(engine, "SELECT value FROM levelsync.outbox ORDER BY id")]
    told = [(event["target"], event.get("old_level"), event["new_level"]) for event in sent]
    assert told == [("progress", None, 3), ("license", None, 3)]


async def test_a_level_that_the_specialization_lacks_is_refused(engine: AsyncEngine, service: Service) -> None:
    await fill(engine, progress={PLAYER: 2})
    before = await everything(engine)
    for level in (0, 9, -1, 2**40):
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
    assert await steps(engine) == [(2, "PLAYER", 3, 4)]


async def test_a_duplicate_beside_the_license_is_named_and_left(engine: AsyncEngine, service: Service) -> None:
    """Other tables may refer to it, so a person must remove it."""
    await fill(engine, progress={PLAYER: 2}, licenses={PLAYER: 2, (1, "player"): 6})
    (other,) = await read(engine, "SELECT id FROM user_licenses WHERE specialization_type = 'player'")
    result = await service.set_level(1, "PLAYER", 3)
    assert f"license {other.id} (player) is left as it is" in result.message
    assert await licenses(engine) == {PLAYER: 3, (1, "player"): 6}
