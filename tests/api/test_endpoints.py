"""The endpoints of the application's API, key by key, and their pages."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.cursors import encode
from tests.support.api import Client, pages
from tests.support.runs import OneWorker
from tests.support.tables import execute, fill, licenses, progress, read

RESULT_KEYS = {"success", "message", "action", "synced"} | {
    f"{when}{side}_level" for when in ("", "old_", "new_") for side in ("progress", "license")
}


async def test_an_issue_has_the_keys_that_clients_read(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await fill(engine, {(3, "PLAYER"): 5, (4, "COACH"): 1}, {(3, "PLAYER"): 3})
    player = {
        "user_id": 3,
        "user_email": "student3@example.org",
        "specialization": "PLAYER",
        "progress_level": 5,
        "license_level": 3,
        "difference": 2,
        "recommended_action": "sync_progress_to_license",
        "issue_type": "mismatched",
        "status": "suspected",
    }
    answer = await admin.get("/desync-issues", params={"specialization": "player"})
    assert (answer.status_code, answer.json()) == (200, [player])
    actions = {one["user_id"]: one["recommended_action"] for one in (await admin.get("/desync-issues")).json()}
    assert actions == {3: "sync_progress_to_license", 4: "create_license_from_progress"}


async def test_pages_follow_each_other_by_their_links(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """The links keep the filter, and the last page has none."""
    await fill(engine, {(user, name): 1 for user in range(1, 8) for name in ("COACH", "PLAYER")}, {})
    found = await pages(admin, "/desync-issues?limit=3&specialization=COACH")
    assert [len(page) for page in found] == [3, 3, 1]
    listed = [(one["user_id"], one["specialization"]) for page in found for one in page]
    assert listed == [(user, "COACH") for user in range(1, 8)]


async def test_pages_of_issues_are_the_whole_list_in_order(
    admin: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sync.issues._FIRST_WINDOW", 1)
    monkeypatch.setattr("service.sync.issues._LARGEST_WINDOW", 3)
    rows = {(user, name): 2 for user in range(1, 12) for name in ("COACH", "PLAYER") if user % 3}
    await fill(engine, rows, {(5, "PLAYER"): 2, (6, "COACH"): 1, (7, "player"): 1})
    (whole,) = await pages(admin, "/desync-issues?limit=1000")
    assert [(one["user_id"], one["specialization"]) for one in whole] == sorted(
        {*rows, (6, "COACH"), (7, "player")} - {(5, "PLAYER"), (7, "PLAYER")}
    )
    assert [one for page in await pages(admin, "/desync-issues?limit=2") for one in page] == whole


async def test_an_issue_is_confirmed_when_a_complete_scan_found_the_same_levels(
    admin: httpx.AsyncClient, engine: AsyncEngine, one_worker: OneWorker
) -> None:
    """An issue whose levels have changed since the scan is suspected again."""

    async def statuses() -> dict[int, str]:
        return {one["user_id"]: one["status"] for one in (await admin.get("/desync-issues")).json()}

    await fill(engine, {(1, "PLAYER"): 5, (2, "PLAYER"): 3}, {(1, "PLAYER"): 4, (2, "PLAYER"): 2})
    assert await statuses() == {1: "suspected", 2: "suspected"}
    await one_worker.run()
    await execute(engine, "UPDATE user_licenses SET current_level = 1 WHERE user_id = 2")
    assert await statuses() == {1: "confirmed", 2: "suspected"}


async def test_one_pair_is_synced_in_each_direction(client: Client, engine: AsyncEngine) -> None:
    """The history names the user of the token."""
    await fill(engine, {(3, "PLAYER"): 2}, {(3, "PLAYER"): 5})
    instructor = client("instructor", "2")
    answer = await instructor.post("/user/3", json={"specialization": "player"})
    assert set(answer.json()) == RESULT_KEYS
    assert (answer.status_code, answer.json()["action"], answer.json()["success"]) == (200, "updated", True)
    assert (answer.json()["old_license_level"], answer.json()["new_license_level"]) == (5, 2)
    assert await read(engine, "SELECT to_level, advanced_by FROM license_progressions") == [(2, 2)]
    again = (await instructor.post("/user/3", json={"specialization": "PLAYER"})).json()
    assert (again["message"], again["action"], again["synced"]) == ("Already in sync", "none", True)
    await execute(engine, "UPDATE user_licenses SET current_level = 4")
    await instructor.post("/user/3", json={"specialization": "PLAYER", "direction": "license_to_progress"})
    assert await progress(engine) == {(3, "PLAYER"): 4}
    await execute(engine, "UPDATE user_licenses SET current_level = 1")
    await instructor.post("/user/3", json={"specialization": "PLAYER", "direction": "highest"})
    assert await licenses(engine) == {(3, "PLAYER"): 4}


async def test_a_missing_row_is_an_answer(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """An unknown user is a 404, even with an id that no column can store."""
    await fill(engine, {}, {})
    answer = await admin.post("/user/3", json={"specialization": "PLAYER"})
    assert (answer.status_code, answer.json()["success"], answer.json()["action"]) == (200, False, "none")
    for user in (201, 0, -1, 2**31, -(2**31) - 1, 10**30):
        for path, body in ((f"/user/{user}", {"specialization": "PLAYER"}), (f"/user/{user}/all", {})):
            answer = await admin.post(path, json=body)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    for written in ("x", "1.0", "1_0", "%201", "1e3", "٣"):
        assert (await admin.post(f"/user/{written}", json={"specialization": "PLAYER"})).status_code == 422


async def test_every_specialization_of_a_user_is_synced(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """The body is optional. A pair that needs a decision fails the whole answer but not the other pairs."""
    await fill(engine, {(3, "PLAYER"): 2, (3, "INTERNSHIP"): 3}, {(3, "COACH"): 7})
    answer = (await admin.post("/user/3/all")).json()
    assert set(answer) == {"success", "user_id", "sync_direction", "results"}
    assert (answer["success"], answer["user_id"], answer["sync_direction"]) == (True, 3, "progress_to_license")
    actions = {name: one["action"] for name, one in answer["results"].items()}
    assert actions == {"COACH": "none", "INTERNSHIP": "created", "PLAYER": "created"}
    assert all(set(one) == RESULT_KEYS for one in answer["results"].values())
    await execute(engine, "UPDATE specialization_progress SET current_level = 9 WHERE specialization_id = 'PLAYER'")
    answer = (await admin.post("/user/3/all", json={"direction": "highest"})).json()
    assert (answer["success"], answer["results"]["PLAYER"]["success"]) == (False, False)
    assert "9" in answer["results"]["PLAYER"]["message"]


async def test_what_does_not_exist_is_named(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await fill(engine, {}, {})
    answer = await admin.post("/user/3", json={"specialization": "WIZARD"})
    assert (answer.status_code, "COACH, INTERNSHIP, PLAYER" in answer.json()["detail"]) == (422, True)
    assert (await admin.get("/desync-issues", params={"specialization": "WIZARD"})).status_code == 422
    for cursor in ("x", "bnVsbA", "W10", "WzEsMl0", "WzEsIlx1MDAwMCJd", "%00", "WzFlOTk5LCJ4Il0"):
        for path in ("/desync-issues", "/runs"):
            assert (await admin.get(path, params={"cursor": cursor})).status_code == 422, cursor


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ("/desync-issues", [1, "\ud800"]),
        ("/desync-issues", [True, "A"]),
        ("/dead-letters", [True]),
        ("/runs", ["0001-01-01T00:00:00+23:59", "0" * 32]),
        ("/runs", ["9999-12-31T23:59:59-23:59", "0" * 32]),
    ],
)
async def test_a_cursor_that_cannot_be_used_is_422(admin: httpx.AsyncClient, path: str, position: list[Any]) -> None:
    assert (await admin.get(path, params={"cursor": encode(*position)})).status_code == 422
