"""The service's methods on a real PostgreSQL, one call at a time.

`set_level` decides a pair that no direction can repair (law 8).
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import get_args

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from events import Direction, LevelSynced
from service.apply.write import MAX_PAIRS, sync_pairs
from service.core.pair import Sides, Why
from service.outbox.put import headers_of
from service.settings import Settings
from service.sync import LevelOutOfRange, UnknownDirection, UnknownSpecialization, UnknownUser
from service.sync import ProgressLicenseSyncService as Service
from tests.support.applier import Partitions, one
from tests.support.model import ADVANCED, LEVELED_UP
from tests.support.tables import (
    PLAYER,
    Levels,
    everything,
    execute,
    fill,
    licenses,
    of_players,
    progress,
    read,
    steps,
    trigger,
)

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
KEYS = {"success", "message", "action", "synced", "progress_level", "license_level"} | {
    f"{when}_{side}_level" for when in ("old", "new") for side in ("progress", "license")
}


async def test_a_license_follows_its_progress_down(engine: AsyncEngine, service: Service) -> None:
    """Level, history, fence and event are written. The best level ever reached stays."""
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    answer = (await service.sync_progress_to_license(1, "PLAYER", synced_by=2)).as_dict()
    assert set(answer) == KEYS
    assert (answer["success"], answer["action"], answer["synced"]) == (True, "updated", True)
    assert (answer["old_license_level"], answer["new_license_level"], answer["progress_level"]) == (5, 3, 3)
    (row,) = await read(engine, "SELECT * FROM user_licenses")
    assert (row.current_level, row.max_achieved_level) == (3, 5)
    (step,) = await read(engine, "SELECT * FROM license_progressions")
    assert (step.from_level, step.to_level, step.advanced_by) == (5, 3, 2)
    (fence,) = await read(engine, "SELECT * FROM levelsync.fences")
    assert (fence.user_id, fence.specialization, fence.level) == (1, "PLAYER", 3)
    assert fence.decided_at.replace(tzinfo=None) == row.last_advanced_at == step.advanced_at
    (sent,) = await read(engine, "SELECT * FROM levelsync.outbox")
    told = {"user_id": 1, "specialization": "PLAYER", "target": "license", "old_level": 5, "new_level": 3}
    assert json.loads(sent.value) == told | {"cause": "sync progress_to_license by 2"}


async def test_what_is_published_of_a_sync_is_what_the_contract_writes(engine: AsyncEngine, service: Service) -> None:
    """PostgreSQL creates the same record as `LevelSynced`, whatever its texts contain."""
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: -5})
    await service.set_level(1, "PLAYER", 4, synced_by='O\'Neil "é" \\ \n\u2028{}')
    sent = await read(engine, "SELECT topic, key, value, headers FROM levelsync.outbox ORDER BY id")
    (fence,) = await read(engine, "SELECT decided_at FROM levelsync.fences")
    assert [row.topic for row in sent] == ["sync.level-synced"] * 2
    for row, target, old in zip(sent, ("progress", "license"), (3, None), strict=True):
        event_id = dict(row.headers)["ce_id"]
        expected = LevelSynced(
            id=event_id,
            time=fence.decided_at,
            user_id=1,
            specialization="PLAYER",
            target=target,  # type: ignore[arg-type]  # one of the two sides
            old_level=old,
            new_level=4,
            cause='level decided by O\'Neil "é" \\ \n\u2028{}',
        ).to_kafka()
        assert (row.topic, row.key) == (expected.topic, expected.key)
        assert json.loads(row.value) == json.loads(expected.value)
        assert headers_of(row.headers) == expected.headers
        assert uuid.UUID(event_id).version == 4
    assert len({dict(row.headers)["ce_id"] for row in sent}) == 2


async def test_progress_follows_its_license_and_keeps_its_xp(engine: AsyncEngine, service: Service) -> None:
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    answer = (await service.sync_license_to_progress(1, "player")).as_dict()
    assert (answer["action"], answer["old_progress_level"], answer["new_progress_level"]) == ("updated", 3, 5)
    (row,) = await read(engine, "SELECT * FROM specialization_progress")
    assert (row.current_level, row.total_xp) == (5, 777)
    assert row.last_activity is not None
    assert (await everything(engine))["public.license_progressions"] == []


async def test_an_orphan_is_skipped_where_its_row_is_not_the_source(engine: AsyncEngine, service: Service) -> None:
    """Only runs create missing rows from orphans."""
    await fill(engine, progress={PLAYER: 4}, licenses={(2, "COACH"): 6})
    before = await everything(engine)
    for result, source in (
        (await service.sync_license_to_progress(*PLAYER), "license"),
        (await service.sync_progress_to_license(2, "COACH"), "progress"),
    ):
        assert result.failed is False
        answer = result.as_dict()
        assert (answer["success"], answer["action"], answer["synced"]) == (False, "none", False)
        assert answer["message"] == f"there is no {source} row to sync from"
    assert await everything(engine) == before


@pytest.mark.parametrize("highest", [False, True])
async def test_orphans_get_their_missing_row(engine: AsyncEngine, service: Service, *, highest: bool) -> None:
    """A created license rises from 0, and created progress has no XP."""
    await fill(engine, progress={PLAYER: 4}, licenses={(2, "COACH"): 6})
    made = [
        await service.sync_pair(*PLAYER, "highest" if highest else "progress_to_license"),
        await service.sync_pair(2, "COACH", "highest" if highest else "license_to_progress"),
    ]
    assert [result.action for result in made] == ["created", "created"]
    assert await licenses(engine) == await progress(engine) == {PLAYER: 4, (2, "COACH"): 6}
    assert await steps(engine) == [(*PLAYER, 0, 4)]
    (row,) = await read(engine, "SELECT total_xp, completed_sessions FROM specialization_progress WHERE student_id = 2")
    assert tuple(row) == (0, 0)
    fenced = [row[:2] for row in (await everything(engine))["levelsync.fences"]]
    assert fenced == ([] if highest else [PLAYER, (2, "COACH")])


async def test_a_pair_in_sync_is_not_touched(engine: AsyncEngine, service: Service) -> None:
    """Only the decision is remembered. `highest` declares none."""
    await fill(engine, of_players(4, 4, 4, 4), of_players(4, 4, 4, 4))
    before = await everything(engine)
    for result in (
        await service.sync_pair(1, "PLAYER", "progress_to_license"),
        await service.sync_pair(2, "PLAYER", "license_to_progress"),
        await service.sync_pair(3, "PLAYER", "highest"),
        await service.set_level(4, "PLAYER", 4),
    ):
        answer = result.as_dict()
        assert (answer["success"], answer["action"], answer["message"]) == (True, "none", "Already in sync")
    after = await everything(engine)
    fences = [(*row[:2], row[3]) for row in after.pop("levelsync.fences")]
    assert fences == [(1, "PLAYER", 4), (2, "PLAYER", 4), (4, "PLAYER", 4)]
    assert after == {table: rows for table, rows in before.items() if table != "levelsync.fences"}


async def test_an_invalid_level_is_not_changed(engine: AsyncEngine, service: Service) -> None:
    """Law 8: there is no clamp in any direction, and the answer names the range."""
    progress = of_players(None, 9, 4, 0)
    await fill(engine, progress, of_players(4, 4, 9, 4))
    before = await everything(engine)
    for pair, direction in product(progress, DIRECTIONS):
        result = await service.sync_pair(*pair, direction)
        assert (result.success, result.failed, result.why) == (False, True, Why.NEEDS_DECISION)
        assert "1 to 8" in result.message
    assert await everything(engine) == before


async def test_a_missing_source_is_an_answer_and_a_missing_user_an_error(engine: AsyncEngine, service: Service) -> None:
    await fill(engine)
    answer = (await service.sync_progress_to_license(1, "PLAYER")).as_dict()
    assert (answer["success"], answer["action"]) == (False, "none")
    for user in (9999, 2**40, -1):
        with pytest.raises(UnknownUser, match=f"no user {user}"):
            await service.sync_progress_to_license(user, "PLAYER")
    for name in ("WIZARD", "", "PLAYER\0"):
        with pytest.raises(UnknownSpecialization, match="COACH, INTERNSHIP, PLAYER"):
            await service.sync_progress_to_license(1, name)
    with pytest.raises(UnknownDirection):
        await service.sync_pair(1, "PLAYER", "sideways")  # type: ignore[arg-type]


async def test_a_license_in_another_case_is_the_pair_s(engine: AsyncEngine, service: Service) -> None:
    await fill(engine, progress={PLAYER: 4}, licenses={(1, "player"): 2})
    assert (await service.sync_progress_to_license(1, "pLayer")).success
    assert await licenses(engine) == {(1, "player"): 4}


async def test_a_caller_who_is_not_a_user_is_named_in_the_reason(engine: AsyncEngine, service: Service) -> None:
    callers: list[int | str] = ["admin@example.org", 9999, "9999", 2**40, "\0" + "x" * 600]
    await fill(engine, of_players(4, 4, 4, 4, 4))
    for user, caller in enumerate(callers, start=1):
        assert (await service.sync_progress_to_license(user, "PLAYER", caller)).success
    rows = await read(engine, "SELECT advanced_by, advancement_reason FROM license_progressions ORDER BY id")
    for caller, (advanced_by, reason) in zip(callers, rows, strict=True):
        assert advanced_by is None
        assert str(caller).strip("\0")[:400] in reason


async def test_a_lowering_is_fenced_and_a_rise_after_it_is_not(engine: AsyncEngine, service: Service) -> None:
    """Law 2: an event from before the decision changes neither side, whenever it arrives."""
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    await service.sync_progress_to_license(1, "PLAYER")
    (fence,) = await read(engine, "SELECT decided_at FROM levelsync.fences")
    partitions = await Partitions(engine).begin()
    for kind in (LEVELED_UP, ADVANCED):
        late = await partitions.apply(kind, partitions.records([one(kind, 5, at=fence.decided_at)]))
        assert list(late.outcomes.values()) == ["superseded"]
    assert await licenses(engine) == await progress(engine) == {PLAYER: 3}
    after = fence.decided_at + timedelta(milliseconds=1)
    fresh = await partitions.apply(LEVELED_UP, partitions.records([one(LEVELED_UP, 4, at=after)]))
    assert list(fresh.outcomes.values()) == ["applied"]


async def test_a_demotion_holds_while_its_older_raise_is_in_kafka(engine: AsyncEngine, service: Service) -> None:
    """Law 2: progress rose to 7 and was lowered to 5 before the event of 7 came. The license had never followed."""
    await fill(engine, of_players(5, 5, 5), of_players(2, 5, 6))
    partitions = await Partitions(engine).begin()
    risen_at = datetime.now(UTC)
    for user in (1, 2, 3):
        assert (await service.sync_progress_to_license(user, "PLAYER")).success
    raises = [one(LEVELED_UP, 7, user=user, at=risen_at) for user in (1, 2, 3)]
    late = await partitions.apply(LEVELED_UP, partitions.records(raises))
    assert list(late.outcomes.values()) == ["superseded"] * 3
    assert await licenses(engine) == await progress(engine) == of_players(5, 5, 5)


async def test_a_sync_that_overrules_no_older_event_leaves_no_fence(engine: AsyncEngine, service: Service) -> None:
    """`highest` believes the higher row, and a sync without a source decides nothing."""
    cases: list[tuple[Levels, Levels, Direction]] = [
        ({PLAYER: 5}, {PLAYER: 2}, "highest"),
        ({PLAYER: 5}, {PLAYER: 5}, "highest"),
        ({}, {PLAYER: 2}, "progress_to_license"),
        ({PLAYER: 5}, {}, "license_to_progress"),
        ({PLAYER: 5}, {PLAYER: 9}, "progress_to_license"),
    ]
    for case in cases:
        progress_levels, license_levels, direction = case
        await fill(engine, progress_levels, license_levels)
        await service.sync_pair(*PLAYER, direction)
        assert await read(engine, "SELECT * FROM levelsync.fences") == [], case


async def test_a_second_lowering_moves_its_fence_forward(engine: AsyncEngine, service: Service) -> None:
    """There is one row for each pair (law 2)."""
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    await service.sync_progress_to_license(1, "PLAYER")
    (first,) = await read(engine, "SELECT * FROM levelsync.fences")
    await execute(engine, "UPDATE specialization_progress SET current_level = 2")
    await service.sync_progress_to_license(1, "PLAYER", "somebody")
    (second,) = await read(engine, "SELECT * FROM levelsync.fences")
    assert second.decided_at > first.decided_at
    assert (second.level, second.decided_by) == (2, "sync progress_to_license by somebody")


async def test_nothing_is_half_written_where_the_second_write_is_refused(engine: AsyncEngine, service: Service) -> None:
    """A CHECK on the history undoes the license, and one on the license undoes the progress. Its text is the answer.

    User 2's license cannot be created, because a trigger suppresses the insert.
    """
    await fill(engine, progress=of_players(2, 2), licenses={PLAYER: 5})
    await trigger(engine, "BEFORE INSERT", "RETURN NULL;")
    await execute(
        engine,
        "ALTER TABLE license_progressions ADD CONSTRAINT no_step_to_two CHECK (to_level <> 2)",
        "ALTER TABLE user_licenses ADD CONSTRAINT no_three CHECK (current_level <> 3)",
    )
    before = await everything(engine)
    for result, refusal in (
        (await service.sync_progress_to_license(1, "PLAYER"), "no_step_to_two"),
        (await service.set_level(1, "PLAYER", 3), "no_three"),
        (await service.sync_progress_to_license(2, "PLAYER"), "trigger"),
    ):
        assert (result.success, result.failed, result.action) == (False, True, "none")
        assert refusal in result.message
    assert await everything(engine) == before


async def test_every_specialization_of_a_user_in_one_call(engine: AsyncEngine, service: Service) -> None:
    await execute(
        engine,
        "INSERT INTO specializations (id, name, max_levels) VALUES ('REFEREE', 'Referee', 4)",
        "ALTER TABLE user_licenses ADD CONSTRAINT no_coach CHECK (specialization_type <> 'COACH') NOT VALID",
    )
    await fill(engine, progress={PLAYER: 2, (1, "REFEREE"): 4})
    fine = (await service.sync_user_all_specializations(1)).as_dict()
    assert set(fine) == {"success", "user_id", "sync_direction", "results"}
    assert fine["success"] is True
    actions = {name: result["action"] for name, result in fine["results"].items()}
    assert actions == {"COACH": "none", "INTERNSHIP": "none", "PLAYER": "created", "REFEREE": "created"}
    await fill(engine, progress={(1, "COACH"): 2, PLAYER: 2})
    refused = await service.sync_user_all_specializations(1, "highest")
    assert not refused.success
    assert [name for name, result in refused.results.items() if result.failed] == ["COACH"]
    assert await licenses(engine) == {PLAYER: 2}


async def test_columns_of_the_application_get_their_configured_values(
    engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without settings, the environment's defaults count."""
    await fill(engine, progress={(2, "PLAYER"): 4})
    await execute(
        engine,
        "ALTER TABLE user_licenses ADD COLUMN tier text NOT NULL",
        "ALTER TABLE specialization_progress ADD COLUMN season int NOT NULL DEFAULT 0",
        "ALTER TABLE specialization_progress ALTER COLUMN season DROP DEFAULT",
    )
    filled = settings.model_copy(update={"license_defaults": {"tier": "basic"}, "progress_defaults": {"season": 7}})
    assert (await Service(engine, filled).set_level(1, "PLAYER", 3)).success
    (row,) = await read(
        engine, "SELECT tier, season FROM user_licenses JOIN specialization_progress ON student_id = user_id"
    )
    assert tuple(row) == ("basic", 7)
    monkeypatch.setenv("LEVELSYNC_LICENSE_DEFAULTS", '{"tier": "gold"}')
    assert (await Service(engine).sync_progress_to_license(2, "PLAYER")).action == "created"
    assert await read(engine, "SELECT tier FROM user_licenses WHERE user_id = 2") == [("gold",)]


async def test_a_pair_that_has_changed_is_skipped(engine: AsyncEngine) -> None:
    """Law 6: `only_if` names the rows that the heal was decided for. A missing row differs from a NULL."""
    await fill(engine, progress={PLAYER: 3, (2, "PLAYER"): 3, (3, "PLAYER"): 3}, licenses={PLAYER: 5})
    both = Sides(3, 5, progress_exists=True, license_exists=True)
    no_level = Sides(3, None, progress_exists=True, license_exists=True)
    seen = {PLAYER: both, (2, "PLAYER"): both, (3, "PLAYER"): no_level}
    async with engine.begin() as conn:
        done = await sync_pairs(conn, list(seen), "highest", cause="run", only_if=seen)
    assert [result.decision.why for result in done.values()] == [None, Why.CHANGED_MEANWHILE, Why.CHANGED_MEANWHILE]
    assert await progress(engine) == {PLAYER: 5, (2, "PLAYER"): 3, (3, "PLAYER"): 3}


async def test_many_pairs_are_written_together(engine: AsyncEngine) -> None:
    """Each pair follows its own rule and is published once."""
    levels = {(user, name): user % 8 + 1 for user in range(1, 101) for name in ("PLAYER", "COACH")}
    await fill(engine, progress=levels, licenses={pair: 4 for pair in levels if pair[0] % 3})
    async with engine.begin() as conn:
        done = await sync_pairs(conn, [*levels, (1, "GONE")], "progress_to_license", cause="run")
    assert await licenses(engine) == levels
    assert done[1, "GONE"].decision.why is Why.UNKNOWN_SPECIALIZATION
    written = [pair for pair, result in done.items() if result.decision.target]
    assert len((await everything(engine))["levelsync.outbox"]) == len(written) == len(await steps(engine))
    lowered = {pair for pair in levels if pair[0] % 3 and levels[pair] < 4}
    assert {row[:2] for row in (await everything(engine))["levelsync.fences"]} == lowered
    async with engine.begin() as conn:
        with pytest.raises(ValueError, match="1000 at most"):
            await sync_pairs(conn, [PLAYER] * (MAX_PAIRS + 1), "highest", cause="run")


async def test_each_operation_is_one_line_of_the_log(engine: AsyncEngine, service: Service) -> None:
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    with capture_logs() as lines:
        await service.sync_progress_to_license(1, "PLAYER", "admin@example.org")
    (line,) = lines
    assert (line["user_id"], line["old_license_level"], line["license_level"]) == (1, 5, 3)
    assert line["cause"] == "sync progress_to_license by admin@example.org"


async def test_both_rows_get_the_level_and_older_events_never_raise_it(engine: AsyncEngine, service: Service) -> None:
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
