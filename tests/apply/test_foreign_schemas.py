"""Databases with triggers, rules, columns and names of the application.

User 1 meets what the schema does. User 2 does not and is always written. Each test compares levels, history, dead
letters and fences: a refused write leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import get_args

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from service.faults import InstallationFault, Kind, read_fault
from service.settings import Settings
from tests.support.applier import Events, NotApplied, again, heal, rise, sync
from tests.support.tables import add_rows, everything, execute, fill, letters, levels_of, licenses, steps, trigger_sql

_ONE = "NEW.user_id = 1"
_ONCE = "NEW.user_id = 1 AND pg_trigger_depth() = 0"
_CHANGE = "UPDATE user_licenses SET {} WHERE id = NEW.id; RETURN NULL;"
_RENAME = "NEW.specialization_type := 'OLD ' || NEW.specialization_type; RETURN NEW;"
_WRITE_BOTH = """
    UPDATE specialization_progress SET current_level = NEW.current_level, total_xp = 99 WHERE student_id = NEW.user_id;
    RETURN NULL;
"""
_TAKEN = (
    "CREATE UNIQUE INDEX one_a_level ON user_licenses ((current_level * 10)) WHERE user_id IN (1, 9)",
    """INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)
       VALUES (9, 'PLAYER', 5, now()), (9, 'COACH', 3, now())""",
    """INSERT INTO specialization_progress (student_id, specialization_id, current_level)
       SELECT user_id, specialization_type, current_level FROM user_licenses WHERE user_id = 9""",
)
_SEEN = "INSERT INTO seen_levels VALUES (NEW.user_id, NEW.current_level); RETURN NEW;"
_NAMES = ("CREATE UNIQUE INDEX one_name ON user_licenses (user_id, upper(specialization_type))",)
SCHEMAS = {
    "before_suppresses": ("refused", trigger_sql("BEFORE UPDATE", "RETURN NULL;", _ONE)),
    "before_caps": ("refused", trigger_sql("BEFORE UPDATE", "NEW.current_level := 4; RETURN NEW;", _ONE)),
    "before_renames": ("refused", trigger_sql("BEFORE UPDATE", _RENAME, _ONE)),
    "after_changes_the_level": ("refused", trigger_sql("AFTER UPDATE", _CHANGE.format("current_level = 4"), _ONCE)),
    "after_touches_the_row": ("written", trigger_sql("AFTER UPDATE", _CHANGE.format("instructor_notes = 'x'"), _ONCE)),
    "after_writes_the_other_table": ("written", trigger_sql("AFTER UPDATE", _WRITE_BOTH, _ONE)),
    "functional_unique_index_on_the_pair": ("written", _NAMES),
    "functional_unique_index_refuses": ("refused", _TAKEN),
    "deferred_constraint": ("refused", trigger_sql("AFTER UPDATE", "RAISE 'not user 1';", _ONE, at_commit=True)),
    "trigger_with_unqualified_names": (
        "written",
        ("CREATE TABLE seen_levels (user_id int, level int)", *trigger_sql("BEFORE UPDATE", _SEEN, _ONE)),
    ),
    "rule": ("fault", ("CREATE RULE act AS ON UPDATE TO user_licenses DO INSTEAD NOTHING",)),
}
"""How user 1's write ends in an application's database, and the statements that change the database."""


async def _event(events: Events, engine: AsyncEngine, _settings: Settings, ends: str) -> None:
    """Raise both users from 2 to 5 in one batch, and send user 1's event again."""
    if ends == "fault":
        with pytest.raises(NotApplied) as raised:
            await events.apply(rise(1, 5), rise(2, 5))
        assert raised.value.fault.kind is Kind.INSTALLATION
        return
    await events.apply(rise(1, 5), rise(2, 5))
    await events.apply(*again([rise(1, 5)]))
    assert await letters(engine) == ([] if ends == "written" else [(at, "refused_by_database") for at in (0, 2)])


async def _sync(_events: Events, engine: AsyncEngine, _settings: Settings, ends: str) -> None:
    """Lower user 1's license from 6 to 3 by a sync."""
    if ends == "fault":
        with pytest.raises((DBAPIError, InstallationFault)) as raised:
            await sync(engine, 1, "progress_to_license")
        assert read_fault(raised.value).kind is Kind.INSTALLATION
        return
    answer = await sync(engine, 1, "progress_to_license")
    assert (answer.success, answer.failed) == (ends == "written", ends != "written")


async def _heal(_events: Events, engine: AsyncEngine, settings: Settings, ends: str) -> None:
    """Lower the licenses of both users from 6 to 3 by a run."""
    if ends == "fault":
        with pytest.raises(AssertionError, match="not within"):  # it waits for the repair; other runs go on
            await heal(engine, settings, timeout=2)
        return
    report = await heal(engine, settings)
    counts = (2, 0) if ends == "written" else (1, 1)
    assert (report["status"], report["counts"]["healed"], report["counts"]["failed"]) == ("completed", *counts)


Do = Callable[[Events, AsyncEngine, Settings, str], Awaitable[None]]
WAYS: dict[str, tuple[Do, tuple[int, ...], int, int]] = {
    "event": (_event, (1, 2), 2, 5),
    "sync": (_sync, (1,), 6, 3),
    "heal": (_heal, (1, 2), 6, 3),
}
"""What each way does, to which users' licenses, from which level to that of the progress."""


_REMOVE_USERS_1_AND_2 = (
    "DELETE FROM license_progressions",
    "DELETE FROM user_licenses WHERE user_id < 3",
    "DELETE FROM specialization_progress WHERE student_id < 3",
    "DELETE FROM levelsync.fences",
)


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_a_write_is_whole_or_absent(events: Events, engine: AsyncEngine, settings: Settings, schema: str) -> None:
    """Only what PostgreSQL reports as written counts as written."""
    ends, statements = SCHEMAS[schema]
    await execute(engine, *statements)
    refused = {"written": set[int](), "refused": {1}, "fault": {1, 2}}[ends]
    for way, (do, users, before, after) in WAYS.items():
        await execute(engine, *_REMOVE_USERS_1_AND_2)
        pairs = [(user, "PLAYER") for user in users]
        await add_rows(engine, progress=dict.fromkeys(pairs, after), licenses=dict.fromkeys(pairs, before))
        await do(events, engine, settings, ends)
        written = [user for user in users if user not in refused]
        for user in users:
            assert await levels_of(engine, user) == (after, after if user in written else before), way
        assert await steps(engine) == [(user, "PLAYER", before, after) for user in written], way
        fences = [(row.user_id, row.level) for row in (await everything(engine))["levelsync.fences"]]
        assert fences == [(user, after) for user in written if way != "event"], way


_ADD = "INSERT INTO specializations (id, name, max_levels) VALUES ('{}', 'Goalie', 8)"


async def test_a_fence_outlives_a_change_of_the_name_s_case(events: Events, engine: AsyncEngine) -> None:
    """Law 2: an event from before the lowering never raises the pair again, in whatever case it writes the name."""
    await execute(engine, _ADD.format("goalie"))
    await add_rows(engine, progress={(1, "goalie"): 3}, licenses={(1, "goalie"): 5})
    assert (await sync(engine, 1, "progress_to_license", "goalie")).after.license_level == 3
    await execute(engine, "DELETE FROM specialization_progress", "UPDATE specializations SET id = upper(id)")
    await events.apply(rise(1, 5, "goalie"))
    await events.apply(rise(1, 5, "GOALIE"))
    assert await licenses(engine) == {(1, "goalie"): 3}
    assert await steps(engine) == [(1, "goalie", 5, 3)]


async def test_two_specializations_with_one_folded_name_are_a_fault(events: Events, engine: AsyncEngine) -> None:
    """Nothing is written, because a license could belong to either. The message names both."""
    await execute(engine, _ADD.format("Player"))
    await add_rows(engine, licenses={(1, "PLAYER"): 2})
    with pytest.raises(NotApplied) as raised:
        await events.apply(rise(1, 3), rise(1, 4, "Player"))
    assert raised.value.fault.kind.name == "INSTALLATION"
    assert "PLAYER" in raised.value.fault.message
    assert "Player" in raised.value.fault.message
    assert (await licenses(engine), await letters(engine)) == ({(1, "PLAYER"): 2}, [])


async def test_a_sync_of_a_pair_with_two_licenses_writes_nothing(engine: AsyncEngine) -> None:
    held = {(1, "PLAYER"): 4, (1, "player"): 2}
    await fill(engine, progress={(1, "PLAYER"): 3}, licenses=held)
    before = await everything(engine)
    for direction in get_args(Direction):
        result = await sync(engine, 1, direction)
        assert (result.success, result.action.value) == (False, "none"), direction
        assert "there are 2 licenses (PLAYER, player)" in result.message
    assert await everything(engine) == before


async def test_events_of_a_pair_always_raise_the_same_of_two_licenses(events: Events, engine: AsyncEngine) -> None:
    """The license with the specialization's own name rises, or else the first by its letters' codes."""
    own, other = {(1, "PLAYER"): 4, (1, "player"): 2}, {(2, "player"): 4, (2, "Player"): 2}
    await add_rows(engine, licenses=own | other)
    for user in (1, 2):
        await events.apply(rise(user, 5), rise(user, 6, "player"), rise(user, 3, "Player"))
        await events.apply(rise(user, 5, "pLAYER"))
    assert await licenses(engine) == own | other | {(1, "PLAYER"): 6, (2, "Player"): 6}
    assert await letters(engine) == []
