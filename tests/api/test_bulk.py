"""`POST /all` is a dry run unless the body has `"dry_run": false`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.sync import bulk
from service.web.api import syncs
from tests.support.api import pages
from tests.support.runs import OneWorker, working
from tests.support.tables import fill, licenses, read
from tests.support.tokens import PREFIX

PROGRESS = {(1, "PLAYER"): 5, (2, "PLAYER"): 3, (3, "COACH"): 2}
LICENSES = {(1, "PLAYER"): 4, (2, "PLAYER"): 3}
REQUEST_KEYS = {"run_id", "dry_run", "direction", "specialization", "user_id", "requested_by", "requested_at"}
RUN_KEYS = REQUEST_KEYS | {"status", "finished_at", "progress", "counts", "unconfirmed_by_kind", "would_stop"}
BULK_KEYS = {"success", "dry_run", "total_issues", "more", "message", "run_id"}


@pytest.fixture
async def drift(engine: AsyncEngine) -> None:
    await fill(engine, PROGRESS, LICENSES)


@pytest.fixture
async def worker(one_worker: OneWorker) -> AsyncIterator[None]:
    async with working(one_worker):
        yield


@pytest.mark.usefixtures("drift", "worker")
async def test_it_writes_only_when_dry_run_is_false(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for body in (b"", b"{}", b'{"dry_run": true}'):
        answer = await admin.post("/all", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert set(found) == BULK_KEYS | {"issues"}
        assert (found["success"], found["dry_run"], found["total_issues"]) == (True, True, 2)
        assert [one["user_id"] for one in found["issues"]] == [1, 3]
    assert await licenses(engine) == LICENSES
    found = (await admin.post("/all", json={"dry_run": False})).json()
    assert set(found) == BULK_KEYS | {"synced_count", "failed_count", "results"}
    assert (found["synced_count"], found["failed_count"], len(found["results"])) == (2, 0, 2)
    assert await licenses(engine) == PROGRESS
    handled = {one["user_id"]: one["result"] for one in found["results"]}
    assert [one["specialization"] for one in found["results"]] == ["PLAYER", "COACH"]
    fives = ("progress_level", "license_level", "old_progress_level", "new_progress_level", "new_license_level")
    message = "license level changed from 4 to 5"
    changed = {"success": True, "message": message, "action": "updated", "synced": True, "old_license_level": 4}
    assert handled[1] == dict.fromkeys(fives, 5) | changed
    assert [handled[3][key] for key in ("action", "old_license_level", "new_license_level")] == ["created", None, 2]


@pytest.mark.usefixtures("worker")
async def test_a_bulk_answer_reports_that_there_are_more(
    admin: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "FIRST_ISSUES", 1)
    await fill(engine, {(1, "PLAYER"): 9, (3, "COACH"): 2}, {(1, "PLAYER"): 4})
    found = (await admin.post("/all", json={"dry_run": False})).json()
    (left,) = found["results"]
    assert (left["user_id"], left["result"]["success"], left["result"]["action"]) == (1, False, "none")
    message = "1 of 1 pair synced, 0 failed; these are the first 1 issues, read the run's issues for all"
    assert (found["more"], found["message"]) == (True, f"Run completed: {message}")
    assert (await admin.post("/all", json={})).json()["more"] is False


@pytest.mark.usefixtures("drift")
async def test_no_other_body_is_read_as_a_write(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    bodies = ["null", "false", "[]", '"x"', '{"direction": "sideways"}', '{"direction": null}', '{"dryRun": false}']
    bodies += [f'{{"dry_run": {value}}}' for value in ("null", '"false"', "0", "0.0", "[]", 'false, "force": true')]
    for body in bodies:
        answer = await admin.post("/all", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, body
    twice = b'{"dry_run": true, "dry_run": false}'
    answer = await admin.post("/all", content=twice, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert await read(engine, "SELECT * FROM levelsync.outbox") == []


@pytest.mark.usefixtures("drift")
async def test_a_run_can_be_followed_without_waiting(admin: httpx.AsyncClient, one_worker: OneWorker) -> None:
    """202 with the run, its address, and bulk keys without values."""
    answer = await admin.post("/all", json={}, headers={"Prefer": "respond-async, wait=10"})
    found = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{PREFIX}/runs/{found['run_id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert set(found) == RUN_KEYS | BULK_KEYS | {"issues", "synced_count", "failed_count", "results"}
    assert {found[name] for name in ("success", "total_issues", "issues", "synced_count", "results")} == {None}
    waiting = (await admin.get(f"/runs/{found['run_id']}")).json()
    assert (waiting["status"], waiting["requested_by"], waiting["dry_run"]) == ("planning", "1", True)
    await one_worker.messages()
    await one_worker.finish(UUID(found["run_id"]))
    done = (await admin.get(f"/runs/{found['run_id']}")).json()
    assert set(done) == RUN_KEYS
    assert (done["status"], done["counts"]["mismatched"], done["counts"]["missing_license"]) == ("completed", 1, 1)
    issues = await admin.get(f"/runs/{found['run_id']}/issues", params={"limit": 1})
    assert [one["user_id"] for one in issues.json()] == [1]
    assert 'rel="next"' in issues.headers["link"]


@pytest.mark.usefixtures("drift")
async def test_a_long_run_is_202(admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncs, "WAIT", 0.3)
    answer = await admin.post("/all", json={})
    assert (answer.status_code, answer.json()["status"]) == (202, "planning")
    assert "preference-applied" not in answer.headers


async def test_a_requested_run_can_be_cancelled_before_it_starts(
    admin: httpx.AsyncClient, engine: AsyncEngine, one_worker: OneWorker
) -> None:
    """Its message arrives later and finds that the run has ended."""
    await fill(engine, {(1, "PLAYER"): 5}, {})
    asked = await admin.post("/all", json={"dry_run": False}, headers={"Prefer": "respond-async"})
    run = asked.headers["location"].removeprefix(PREFIX)
    assert (await admin.post(f"{run}/cancel")).json()["status"] == "cancelled"
    while await one_worker.step():
        pass
    assert (await admin.get(run)).json()["status"] == "cancelled"
    assert await licenses(engine) == {}


@pytest.mark.usefixtures("drift", "worker")
async def test_a_key_is_the_run_s_id(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """The same key again is the same run. Another body with the same key is refused."""
    key = str(uuid4())
    calls = (admin.post("/all", json={}, headers={"Idempotency-Key": key}) for _ in range(5))
    answers = await asyncio.gather(*calls)
    assert {one.json()["run_id"] for one in answers} == {key}
    again = await admin.post("/all", json={}, headers={"Idempotency-Key": key})
    assert again.json()["run_id"] == key
    other = await admin.post("/all", json={"dry_run": False}, headers={"Idempotency-Key": key})
    assert (other.status_code, "Idempotency-Key" in other.json()["detail"]) == (422, True)
    words = await admin.post("/all", json={}, headers={"Idempotency-Key": '"monday morning"'.replace(" ", "-")})
    assert UUID(words.json()["run_id"]).version == 5
    assert len(await read(engine, "SELECT * FROM levelsync.reconcile_runs")) == 2
    assert await licenses(engine) == LICENSES
    for bad in ("", '""', "x" * 256, "two words"):
        answer = await admin.post("/all", json={}, headers={"Idempotency-Key": bad})
        assert answer.status_code == 422, bad


async def test_runs_are_listed_newest_first_page_by_page(admin: httpx.AsyncClient, one_worker: OneWorker) -> None:
    """A run can be cancelled twice. An unknown run is a 404."""
    made = [str(await one_worker.request(requested_by=f"{number}")) for number in range(5)]
    found = await pages(admin, "/runs?limit=2")
    assert [[run["run_id"] for run in page] for page in found] == [made[:2:-1], made[2:0:-1], made[:1]]
    for _ in range(2):
        answer = await admin.post(f"/runs/{made[0]}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    for path in (f"/runs/{uuid4()}", f"/runs/{uuid4()}/issues"):
        assert (await admin.get(path)).status_code == 404
    assert (await admin.post(f"/runs/{uuid4()}/cancel")).status_code == 404
    assert (await admin.get("/runs/monday")).status_code == 422
