"""How many levels a run lowers, and the limit of its request (law 8)."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.reconcile.runs import read_issues
from tests.support.runs import OneWorker
from tests.support.tables import fill, read

LICENSES = "SELECT user_id, current_level FROM user_licenses ORDER BY user_id"


@pytest.fixture(autouse=True)
async def _pairs(engine: AsyncEngine) -> None:
    """Three licenses above their progress, two below, one missing on each side, and one that needs a decision."""
    progress = {1: 4, 2: 4, 3: 4, 4: 5, 5: 5, 6: 3, 8: 2}
    licenses = {1: 5, 2: 6, 3: 7, 4: 2, 5: 2, 7: 3, 8: 99}
    await fill(
        engine,
        {(user, "PLAYER"): level for user, level in progress.items()},
        {(user, "PLAYER"): level for user, level in licenses.items()},
    )


async def test_a_dry_run_counts_and_marks_the_levels_that_would_fall(one_worker: OneWorker) -> None:
    """A created row and a pair that needs a decision do not count."""
    expected = {"progress_to_license": [1, 2, 3], "license_to_progress": [4, 5], "highest": []}
    for direction, users in expected.items():
        report = await one_worker.run(direction=direction)
        assert (report["counts"]["mismatched"], report["counts"]["lowered"]) == (5, len(users)), direction
        assert one_worker.completed[-1]["counts"]["lowered"] == len(users)
        async with one_worker.engine.connect() as conn:
            found = await read_issues(conn, report["run_id"], 100)
        assert [issue.user_id for issue in found if issue.lowered] == users
        assert len(found) == 8


async def test_a_run_stops_before_its_first_write_where_more_would_fall(one_worker: OneWorker) -> None:
    """The request was for two levels, and a third came since. Force overrides only the breaker."""
    before = await read(one_worker.engine, LICENSES)
    report = await one_worker.run(dry_run=False, max_lowered=2, force=True)
    assert (report["status"], report["would_stop"]) == ("stopped_by_breaker", False)
    assert (report["counts"]["lowered"], report["counts"]["healed"]) == (3, 0)
    assert await read(one_worker.engine, LICENSES) == before
    detail = await read(one_worker.engine, "SELECT detail FROM levelsync.reconcile_runs")
    assert detail == [("3 levels would fall, and the request allows 2",)]


async def test_a_run_heals_where_no_more_fall_than_allowed(one_worker: OneWorker) -> None:
    report = await one_worker.run(dry_run=False, max_lowered=3)
    assert (report["status"], report["counts"]["lowered"], report["counts"]["healed"]) == ("completed", 3, 7)
    assert (await read(one_worker.engine, LICENSES))[:5] == [(1, 4), (2, 4), (3, 4), (4, 5), (5, 5)]
