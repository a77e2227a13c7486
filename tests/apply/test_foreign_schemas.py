"""Databases with triggers, rules, columns and names of the application.

User 1 meets what the schema does. User 2 does not and is always written. Each test compares levels, history, dead
letters and fences: a refused write leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from service.faults import InstallationFault, Kind, read_fault
from service.settings import Settings
from tests.support.applier import Events, NotApplied, again, heal, rise, sync
from tests.support.tables import add_rows, execute, fill, letters, levels_of, licenses, progress, read, steps

ONE, TWO = (1, "PLAYER"), (2, "PLAYER")


def _trigger(when: str, body: str, condition: str = "NEW.user_id = 1") -> tuple[str, ...]:
    """Return the statements that create a row trigger on licenses which acts where `condition` holds."""
    deferred = " DEFERRABLE INITIALLY DEFERRED" if when.startswith("CONSTRAINT") else ""
    kind, _, event = when.rpartition("|")
    return (
        f"CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"""CREATE {kind or "TRIGGER"} act {event} ON user_licenses{deferred}
               FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION act()""",
    )


@dataclass(frozen=True)
class Schema:
    """What an application's database contains, and how user 1's write ends: written, refused, or a fault."""

    name: str
    statements: tuple[str, ...]
    ends: str


SCHEMAS = (
    Schema("before_suppresses", _trigger("BEFORE UPDATE", "RETURN NULL;"), "refused"),
    Schema("before_caps", _trigger("BEFORE UPDATE", "NEW.current_level := 4; RETURN NEW;"), "refused"),
    Schema(
        "before_renames",
        _trigger("BEFORE UPDATE", "NEW.specialization_type := 'OLD ' || NEW.specialization_type; RETURN NEW;"),
        "refused",
    ),
    Schema(
        "after_changes_the_level",
        _trigger(
            "AFTER UPDATE",
            "UPDATE user_licenses SET current_level = 4 WHERE id = NEW.id; RETURN NULL;",
            "NEW.user_id = 1 AND pg_trigger_depth() = 0",
        ),
        "refused",
    ),
    Schema(
        "after_touches_the_row",
        _trigger(
            "AFTER UPDATE",
            "UPDATE user_licenses SET instructor_notes = 'seen' WHERE id = NEW.id; RETURN NULL;",
            "NEW.user_id = 1 AND pg_trigger_depth() = 0",
        ),
        "written",
    ),
    Schema(
        "after_writes_the_other_table",
        _trigger(
            "AFTER UPDATE",
            """UPDATE specialization_progress SET current_level = NEW.current_level, total_xp = 99
                WHERE student_id = NEW.user_id; RETURN NULL;""",
        ),
        "written",
    ),
    Schema(
        "functional_unique_index_on_the_pair",
        ("CREATE UNIQUE INDEX one_name ON user_licenses (user_id, upper(specialization_type))",),
        "written",
    ),
    Schema(
        "functional_unique_index_refuses",
        (
            "CREATE UNIQUE INDEX one_a_level ON user_licenses ((current_level * 10)) WHERE user_id IN (1, 9)",
            """INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)
               VALUES (9, 'PLAYER', 5, now()), (9, 'COACH', 3, now())""",
            """INSERT INTO specialization_progress (student_id, specialization_id, current_level)
               SELECT user_id, specialization_type, current_level FROM user_licenses WHERE user_id = 9""",
        ),
        "refused",
    ),
    Schema("deferred_constraint", _trigger("CONSTRAINT TRIGGER|AFTER UPDATE", "RAISE 'not user 1';"), "refused"),
    Schema(
        "trigger_with_unqualified_names",
        (
            "CREATE TABLE seen_levels (user_id int, level int)",
            *_trigger("BEFORE UPDATE", "INSERT INTO seen_levels VALUES (NEW.user_id, NEW.current_level); RETURN NEW;"),
        ),
        "written",
    ),
    Schema("rule", ("CREATE RULE act AS ON UPDATE TO user_licenses DO INSTEAD NOTHING",), "fault"),
)


async def _event(events: Events, engine: AsyncEngine, _settings: Settings, ends: str) -> None:
    """Raise both users from 2 to 5 in one batch, and send user 1's event again."""
    await add_rows(engine, progress={ONE: 5, TWO: 5}, licenses={ONE: 2, TWO: 2})
    if ends == "fault":
        with pytest.raises(NotApplied) as raised:
            await events.apply(rise(1, 5), rise(2, 5))
        assert raised.value.fault.kind is Kind.INSTALLATION
        assert await levels_of(engine, 1) == await levels_of(engine, 2) == (5, 2)
        return
    await events.apply(rise(1, 5), rise(2, 5))
    await events.apply(*again([rise(1, 5)]))
    written = ends == "written"
    assert (await levels_of(engine, 1), await levels_of(engine, 2)) == ((5, 5 if written else 2), (5, 5))
    assert await steps(engine) == [(1, "PLAYER", 2, 5)] * written + [(2, "PLAYER", 2, 5)]
    assert await letters(engine) == ([] if written else [(at, "refused_by_database") for at in (0, 2)])
    assert await _fences(engine) == []


async def _sync(_events: Events, engine: AsyncEngine, _settings: Settings, ends: str) -> None:
    """Lower user 1's license from 6 to 3 by a sync."""
    await add_rows(engine, progress={ONE: 3}, licenses={ONE: 6})
    if ends == "fault":
        with pytest.raises((DBAPIError, InstallationFault)) as raised:
            await sync(engine, 1, "progress_to_license")
        assert read_fault(raised.value).kind is Kind.INSTALLATION
        assert (await levels_of(engine, 1), await steps(engine), await _fences(engine)) == ((3, 6), [], [])
        return
    answer = await sync(engine, 1, "progress_to_license")
    written = ends == "written"
    assert (answer.success, answer.failed) == (written, not written)
    assert await levels_of(engine, 1) == (3, 3 if written else 6)
    assert await steps(engine) == [(1, "PLAYER", 6, 3)] * written
    assert await _fences(engine) == [(1, 3)] * written


async def _heal(_events: Events, engine: AsyncEngine, settings: Settings, ends: str) -> None:
    """Lower the licenses of both users from 6 to 3 by a run."""
    await add_rows(engine, progress={ONE: 3, TWO: 3}, licenses={ONE: 6, TWO: 6})
    if ends == "fault":
        with pytest.raises(AssertionError, match="not within"):  # it waits for the repair; other runs go on
            await heal(engine, settings, timeout=2)
        assert await levels_of(engine, 1) == await levels_of(engine, 2) == (3, 6)
        assert (await steps(engine), await _fences(engine)) == ([], [])
        return
    report = await heal(engine, settings)
    written = ends == "written"
    healed, failed = (2, 0) if written else (1, 1)
    assert (report["status"], report["counts"]["healed"], report["counts"]["failed"]) == ("completed", healed, failed)
    assert (await levels_of(engine, 1), await levels_of(engine, 2)) == ((3, 3 if written else 6), (3, 3))
    assert await steps(engine) == [(1, "PLAYER", 6, 3)] * written + [(2, "PLAYER", 6, 3)]
    assert await _fences(engine) == [(1, 3)] * written + [(2, 3)]


WAYS: dict[str, Callable[[Events, AsyncEngine, Settings, str], Awaitable[None]]] = {
    "event": _event,
    "sync": _sync,
    "heal": _heal,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
async def test_a_write_stands_whole_or_not_at_all(
    events: Events, engine: AsyncEngine, settings: Settings, schema: Schema, way: str
) -> None:
    """Only what PostgreSQL reports as written counts as written."""
    await execute(engine, *schema.statements)
    await WAYS[way](events, engine, settings, schema.ends)


async def _fences(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await read(engine, "SELECT user_id, level FROM levelsync.fences ORDER BY 1")]


_ADD = "INSERT INTO specializations (id, name, max_levels) VALUES ('{}', 'Goalie', 8)"


async def test_a_fence_outlives_a_change_of_the_name_s_case(events: Events, engine: AsyncEngine) -> None:
    """Law 2: an event from before the lowering never raises the pair again, in whatever case it writes the name."""
    await execute(engine, _ADD.format("goalie"))
    await add_rows(engine, progress={(1, "goalie"): 3}, licenses={(1, "goalie"): 5})
    assert (await sync(engine, 1, "progress_to_license", "goalie")).after.license_level == 3
    await execute(
        engine, "DELETE FROM specialization_progress", "UPDATE specializations SET id = 'GOALIE' WHERE id = 'goalie'"
    )
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


@pytest.mark.parametrize("direction", ["progress_to_license", "license_to_progress", "highest"])
async def test_a_sync_of_a_pair_with_two_licenses_writes_nothing(engine: AsyncEngine, direction: Direction) -> None:
    """Neither license is the pair's level. Somebody has to remove one."""
    held = {(1, "PLAYER"): 4, (1, "player"): 2}
    await fill(engine, progress={(1, "PLAYER"): 3}, licenses=held)
    result = await sync(engine, 1, direction)
    assert (result.success, result.action.value) == (False, "none")
    assert "there are 2 licenses (PLAYER, player)" in result.message
    assert (await licenses(engine), await progress(engine)) == (held, {(1, "PLAYER"): 3})
    assert await read(engine, "SELECT user_id FROM levelsync.fences") == []


@pytest.mark.parametrize(
    ("held", "raised"),
    [
        ({(1, "PLAYER"): 4, (1, "player"): 2}, {(1, "PLAYER"): 6, (1, "player"): 2}),
        ({(1, "player"): 4, (1, "Player"): 2}, {(1, "player"): 4, (1, "Player"): 6}),
    ],
)
async def test_events_of_a_pair_with_two_licenses_raise_one_of_them_and_always_the_same(
    events: Events, engine: AsyncEngine, held: dict[tuple[int, str], int], raised: dict[tuple[int, str], int]
) -> None:
    """The license with the specialization's own name rises, or else the first by its letters' codes."""
    await add_rows(engine, licenses=held)
    await events.apply(rise(1, 5), rise(1, 6, "player"), rise(1, 3, "Player"))
    await events.apply(rise(1, 5, "pLAYER"))
    assert (await licenses(engine), await letters(engine)) == (raised, [])
