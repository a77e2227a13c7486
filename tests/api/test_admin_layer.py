"""The layer below the API and the page: syncs, lists of issues, and runs."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin import pairs, runs, users
from service.admin.runs import RunRequest
from service.settings import Settings
from tests.support.runs import OneWorker
from tests.support.tables import execute, fill, licenses, read
from tests.support.tokens import somebody

ADMIN, INSTRUCTOR = somebody("admin"), somebody("instructor", "2")
AUDIT = "SELECT subject, role, action, outcome, detail FROM levelsync.admin_actions ORDER BY id"


async def test_a_sync_and_its_row_in_the_audit_log_are_one_transaction(engine: AsyncEngine, settings: Settings) -> None:
    """A sync is undone when its row in the audit log cannot be written."""
    await fill(engine, {(1, "PLAYER"): 5}, {})
    await users.sync_pair(engine, settings, INSTRUCTOR, (1, "player"), "progress_to_license")
    assert await read(engine, AUDIT) == [
        ("2", "instructor", "sync_pair", "done", "PLAYER: license row created at level 5")
    ]
    refuse_rows = "ALTER TABLE levelsync.admin_actions ADD CHECK (action = 'no') NOT VALID"
    await execute(engine, "UPDATE specialization_progress SET current_level = 6", refuse_rows)
    with pytest.raises(DBAPIError):
        await users.sync_pair(engine, settings, INSTRUCTOR, (1, "PLAYER"), "progress_to_license")
    assert await licenses(engine) == {(1, "PLAYER"): 5}


async def test_pages_of_issues_are_the_whole_list_in_order(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sync.issues._FIRST_WINDOW", 1)
    monkeypatch.setattr("service.sync.issues._LARGEST_WINDOW", 3)
    progress = {(user, name): 2 for user in range(1, 12) for name in ("COACH", "PLAYER") if user % 3}
    await fill(engine, progress, {(5, "PLAYER"): 2, (6, "COACH"): 1, (7, "player"): 1})
    whole = [issue.issue.as_dict() for issue in (await pairs.desync_issues(engine, ADMIN, limit=1000)).issues]
    assert [(i["user_id"], i["specialization"]) for i in whole] == sorted(
        {*progress, (6, "COACH"), (7, "player")} - {(5, "PLAYER"), (7, "PLAYER")}
    )
    page = await pairs.desync_issues(engine, ADMIN, limit=2)
    paged = [*page.issues]
    while page.next:
        page = await pairs.desync_issues(engine, ADMIN, after=page.next, limit=2)
        paged += page.issues
    assert [one.issue.as_dict() for one in paged] == whole


async def test_an_issue_is_confirmed_when_a_complete_scan_found_the_same_levels(
    engine: AsyncEngine, one_worker: OneWorker
) -> None:
    """An issue whose levels have changed since the scan is suspected again."""
    await fill(engine, {(1, "PLAYER"): 5, (2, "PLAYER"): 3}, {(1, "PLAYER"): 4, (2, "PLAYER"): 2})
    assert {one.status for one in (await pairs.desync_issues(engine, ADMIN)).issues} == {"suspected"}
    await one_worker.run()
    await execute(engine, "UPDATE user_licenses SET current_level = 1 WHERE user_id = 2")
    page = await pairs.desync_issues(engine, ADMIN)
    assert {one.issue.user_id: one.status for one in page.issues} == {1: "confirmed", 2: "suspected"}


async def test_a_requested_run_can_be_cancelled_before_it_starts(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """Its message arrives later and finds that the run has ended."""
    await fill(engine, {(1, "PLAYER"): 5}, {})
    run_id = await runs.request_run(engine, ADMIN, RunRequest(dry_run=False))
    assert (await runs.cancel_run(engine, ADMIN, run_id)).status == "cancelled"
    while await one_worker.step():
        pass
    assert (await runs.read_report(engine, ADMIN, run_id)).status == "cancelled"
    assert await licenses(engine) == {}
