"""`levelsync erase` removes everything that names the user, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.store.tables import metadata
from tests.support.process import Result, environment, levelsync
from tests.support.tables import execute, read

ID, ADDRESS = 4242, "erased.person@example.org"
RUN, OWN_RUN = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
_LETTER = """
    INSERT INTO levelsync.dead_letters (topic, partition, "offset", record_timestamp, key, value, reason, resolved_by)
    VALUES ('progress.leveled-up', 0, {offset}, 1, {key}, {value}, 'malformed', {by})
"""
_ROWS = (
    _LETTER.format(offset=1, key=f"'{ID}'", value=r"'\xff'", by="NULL"),
    _LETTER.format(offset=2, key="NULL", value=f"""'{{"user_id": {ID}, "x'""", by="NULL"),
    _LETTER.format(offset=3, key="'7'", value="""'{"user_id": 7}'""", by=f"'{ADDRESS}'"),
    f"INSERT INTO levelsync.outbox (topic, key, value) VALUES ('x', '{ID}', '{{}}'), ('x', '7', '{{}}')",
    f"INSERT INTO levelsync.fences VALUES ({ID}, 'PLAYER', now(), 1, 'x')",
    f"INSERT INTO levelsync.fences VALUES (7, 'PLAYER', now(), 1, 'level decided by {ID}')",
    (
        "INSERT INTO levelsync.removed_rows (table_name, row_id, row, revision)"
        f""" VALUES ('user_licenses', 1, '{{"user_id": {ID}}}', 'x'), ('specialization_progress', 2,"""
        f""" '{{"student_id": {ID}}}', 'x'), ('user_licenses', 3, '{{"user_id": 7}}', 'x')"""
    ),
    (
        "INSERT INTO levelsync.reconcile_runs (id, status, direction, dry_run, force, finished_at, user_id,"
        f" requested_by) VALUES ('{RUN}', 'completed', 'highest', true, false, now(), NULL, '{ADDRESS}'),"
        f" ('{OWN_RUN}', 'completed', 'highest', true, false, now(), {ID}, 'x')"
    ),
    (
        "INSERT INTO levelsync.reconcile_ranges (run_id, chunk, after_user, upto_user, suspects, suspect_count)"
        f""" VALUES ('{RUN}', 0, 0, 9999, '[[7, "PLAYER", "mismatched", 1, 2], [{ID}, "COACH", "x", 1, 2]]', 2)"""
    ),
    (
        "INSERT INTO levelsync.drift_issues (run_id, user_id, specialization, kind, status)"
        f" SELECT '{RUN}', id, 'PLAYER', 'mismatched', 'confirmed' FROM unnest(ARRAY[7, {ID}]) id"
    ),
    (
        "INSERT INTO levelsync.admin_actions (subject, role, action, arguments, outcome, detail)"
        f""" VALUES ('{ID}', 'admin', 'sync_pair', '{{"user_id": 7}}', 'done', 'x'),"""
        f""" ('7', 'admin', 'sync_pair', '{{"user_id": {ID}}}', 'done', 'about {ID}')"""
    ),
)


@pytest.fixture
async def database(engine: AsyncEngine) -> AsyncEngine:
    """In every table, a row of the user or in their name, and one of user 7."""
    await execute(engine, *(statement.replace(":", r"\:") for statement in _ROWS))
    return engine


async def everything(engine: AsyncEngine) -> dict[str, list[str]]:
    """Return every row of levelsync's own tables, as text."""
    rows = {name: await read(engine, f"SELECT * FROM {name}") for name in metadata.tables}
    return {name: sorted(repr(tuple(row)) for row in found) for name, found in rows.items()}


async def erase(settings: Settings, *options: str, user: int = ID) -> Result:
    return await asyncio.to_thread(levelsync, "erase", str(user), *options, env=environment(settings))


async def test_nothing_names_the_user_afterwards(database: AsyncEngine, settings: Settings) -> None:
    before = await everything(database)
    run = await erase(settings, "--yes", "--json", "--email", ADDRESS)
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    assert {what for what, number in report["erased"].items() if not number} == set()
    after = await everything(database)
    rows = [row for rows in after.values() for row in rows]
    assert [row for row in rows if re.search(rf"\b{ID}\b|{ADDRESS}", row)] == []
    removed = {name: len(before[name]) - len(after[name]) for name in before if len(before[name]) != len(after[name])}
    assert removed == {
        "levelsync.dead_letters": 2,
        "levelsync.outbox": 1,
        "levelsync.fences": 1,
        "levelsync.removed_rows": 2,
        "levelsync.reconcile_runs": 1,
        "levelsync.drift_issues": 1,
        "levelsync.admin_actions": -1,  # records the erasure without the user
    }
    suspects = await read(database, "SELECT suspects, suspect_count FROM levelsync.reconcile_ranges")
    assert suspects == [([[7, "PLAYER", "mismatched", 1, 2]], 1)]


async def test_a_dry_run_or_a_missing_confirmation_changes_nothing(database: AsyncEngine, settings: Settings) -> None:
    """A dry run reports what would go, and what it does not reach."""
    before = await everything(database)
    run = await erase(settings, "--dry-run")
    assert run.returncode == 0
    assert "dead letters: 2" in run.stderr
    assert "Not erased: the application's own tables" in run.stderr
    assert (await erase(settings)).returncode == 2
    assert await everything(database) == before


async def test_a_running_run_is_kept_and_reported(database: AsyncEngine, settings: Settings) -> None:
    """The run's workers need its row, so the user must be erased again later."""
    await execute(database, f"UPDATE levelsync.reconcile_runs SET finished_at = NULL WHERE id = '{OWN_RUN}'")
    run = await erase(settings, "--yes")
    assert (run.returncode, "erase again" in run.stderr) == (1, True)


async def test_a_user_who_still_exists_is_reported(database: AsyncEngine, settings: Settings) -> None:
    """New events would be kept again. Without fences they could raise a level that a decision lowered (law 2)."""
    run = await erase(settings, "--yes", user=7)
    assert "The application still has user 7" in run.stderr
    assert await read(database, "SELECT count(*) FROM levelsync.fences WHERE user_id = 7") == [(1,)]
