"""`auto_sync_all`: the seed's bulk method as a run, with the keys that clients read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.sync import ProgressLicenseSyncService as Service
from tests.support.runs import OneWorker, working
from tests.support.tables import fill, licenses

PROGRESS = {(1, "PLAYER"): 5, (2, "PLAYER"): 3, (3, "COACH"): 2}
LICENSES = {(1, "PLAYER"): 4, (2, "PLAYER"): 3}


@pytest.fixture
async def service(engine: AsyncEngine, settings: Settings, one_worker: OneWorker) -> AsyncIterator[Service]:
    """The service with a worker beside it, and two pairs that differ."""
    await fill(engine, PROGRESS, LICENSES)
    async with working(one_worker):
        yield Service(engine, settings)


async def test_the_default_is_a_dry_run_that_names_what_differs(service: Service, engine: AsyncEngine) -> None:
    answer = (await service.auto_sync_all()).as_dict()
    assert set(answer) == {"success", "dry_run", "total_issues", "issues", "more", "message", "run_id"}
    assert (answer["success"], answer["dry_run"], answer["total_issues"]) == (True, True, 2)
    actions = {issue["user_id"]: issue["recommended_action"] for issue in answer["issues"]}
    assert actions == {1: "sync_progress_to_license", 3: "create_license_from_progress"}
    assert await licenses(engine) == LICENSES


async def test_for_real_it_heals_and_counts(service: Service, engine: AsyncEngine) -> None:
    answer = (await service.auto_sync_all("progress_to_license", dry_run=False)).as_dict()
    assert (answer["success"], answer["synced_count"], answer["failed_count"]) == (True, 2, 0)
    assert {issue["status"] for issue in answer["results"]} == {"healed"}
    assert await licenses(engine) == PROGRESS
