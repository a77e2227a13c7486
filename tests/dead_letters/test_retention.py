"""Old rows are removed by one process at a time, except those that views and people still need."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from service.process import removal
from service.process.removal import Retention
from service.process.schedule import schedule_role
from service.settings import Settings
from service.telemetry.health import Health
from tests.support.letters import NOBODY, Setup
from tests.support.waiting import eventually

_RUN = """
    INSERT INTO levelsync.reconcile_runs (id, status, step, direction, dry_run, force, finished_at, user_id)
    VALUES ('{id}', '{status}', 'done', 'highest', true, false, now() - interval '{days} days', {user})
"""


def of(setup: Setup, settings: Settings, **changed: Any) -> Retention:
    return Retention(setup.engine, settings.model_copy(update=changed))


async def age(setup: Setup, days: int, condition: str = "true") -> None:
    aged = f"first_seen_at = now() - interval '{days} days'"
    await setup.run(f"UPDATE levelsync.dead_letters SET {aged} WHERE {condition}")


async def test_old_letters_are_removed(setup: Setup, settings: Settings) -> None:
    await setup.letters_of(*range(NOBODY, NOBODY + 4))
    await age(setup, 91, "id <> 1")
    await setup.run("UPDATE levelsync.dead_letters SET replayed_at = now() WHERE id = 2")
    await setup.run("UPDATE levelsync.dead_letters SET resolved_at = now(), resolution = 'discarded' WHERE id = 3")
    with capture_logs() as lines:
        removed = await of(setup, settings).clean()
    assert removed == {"dead_letters": 2, "runs": 0, "admin_actions": 0, "minute_samples": 0}
    assert [row[0] for row in await setup.letters()] == [1, 2]
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert (warning["number"], warning["by_reason"]) == (1, {"unknown_user": 1})


async def test_a_retention_of_0_keeps_everything(setup: Setup, settings: Settings) -> None:
    await setup.letters_of(NOBODY)
    await age(setup, 9999)
    await of(setup, settings, dead_letter_retention=timedelta(0)).clean()
    assert len(await setup.letters()) == 1


async def test_old_runs_are_removed_except_the_last_complete_one(setup: Setup, settings: Settings) -> None:
    """The views show it. A failed run, or a run of one user, is not complete."""
    ids = {name: uuid4() for name in ("older", "last", "failed", "of one user", "young")}
    for name, (status, days, user) in {
        "older": ("completed", 200, "NULL"),
        "last": ("completed", 100, "NULL"),
        "failed": ("failed", 95, "NULL"),
        "of one user": ("completed", 94, "7"),
        "young": ("failed", 89, "NULL"),
    }.items():
        await setup.run(_RUN.format(id=ids[name], status=status, days=days, user=user))
    await setup.run(
        "INSERT INTO levelsync.reconcile_ranges (run_id, chunk, after_user, upto_user)"
        f" VALUES ('{ids['older']}', 0, 0, 9)",
        "INSERT INTO levelsync.drift_issues (run_id, user_id, specialization, kind, status)"
        f" VALUES ('{ids['older']}', 1, 'PLAYER', 'mismatched', 'confirmed')",
    )
    assert (await of(setup, settings).clean())["runs"] == 3
    left: set[UUID] = {row[0] for row in await setup.rows("SELECT id FROM levelsync.reconcile_runs")}
    assert left == {ids["last"], ids["young"]}
    assert await setup.rows("SELECT 1 FROM levelsync.drift_issues") == []


async def test_the_audit_log_is_kept_a_year_and_minute_samples_two_days(setup: Setup, settings: Settings) -> None:
    await setup.run(
        "INSERT INTO levelsync.admin_actions (at, subject, role, action, outcome)"
        " SELECT now() - days * interval '1 day', '1', 'admin', 'read', 'refused' FROM unnest(ARRAY[364, 366]) days",
        "INSERT INTO levelsync.minute_samples (minute)"
        " SELECT now() - hours * interval '1 hour' FROM unnest(ARRAY[47, 49]) hours",
    )
    removed = await of(setup, settings).clean()
    assert (removed["admin_actions"], removed["minute_samples"]) == (1, 1)


async def test_one_process_at_a_time_removes_everything_in_bounded_transactions(
    setup: Setup, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "BATCH_ROWS", 2)
    await setup.letters_of(*range(NOBODY, NOBODY + 5))
    await age(setup, 91)
    async with setup.engine.begin() as conn:
        await conn.execute(removal._TRY_LOCK)
        assert (await of(setup, settings).clean())["dead_letters"] == 0
    both = await asyncio.gather(*(of(setup, settings).clean() for _ in range(8)))
    assert sum(one["dead_letters"] for one in both) == 5


async def test_the_role_schedule_removes_what_is_old(setup: Setup, settings: Settings) -> None:
    await setup.letters_of(NOBODY)
    await age(setup, 91)

    async def gone() -> bool:
        return not await setup.letters()

    async with schedule_role(setup.engine, settings.model_copy(update={"reconcile_every": timedelta(0)}), Health()):
        await eventually(gone)
