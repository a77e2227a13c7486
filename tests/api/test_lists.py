"""Lists as CSV, the order and filters of a run's issues, the audit log, and letters found by text."""

from __future__ import annotations

import csv
import io
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.api import Client, pages
from tests.support.tables import execute, fill

RUN = UUID(int=7)
_RUN = f"""
    INSERT INTO levelsync.reconcile_runs
           (id, status, step, direction, dry_run, force, finished_at, counts, requested_by)
    VALUES ('{RUN}', 'completed', 'done', 'progress_to_license', true, false, now(), '{{"scanned": 5}}', '=1+1')
"""
_ISSUES = f"""
    INSERT INTO levelsync.drift_issues (run_id, user_id, specialization, kind, progress_level, license_level, status)
    VALUES ('{RUN}', 1, 'PLAYER', 'mismatched', 5, 3, 'confirmed'),
           ('{RUN}', 2, 'COACH', 'mismatched', 1, 3, 'confirmed'),
           ('{RUN}', 2, 'PLAYER', 'missing_license', 7, NULL, 'unconfirmed'),
           ('{RUN}', 3, 'COACH', 'mismatched', 2, 8, 'changed_meanwhile')
"""
_LETTERS = """
    INSERT INTO levelsync.dead_letters
           (topic, partition, "offset", record_timestamp, key, value, headers, reason, detail)
    VALUES ('progress.leveled-up', 0, 1, 0, '5', '{"note": "Zebra"}', '[]', 'invalid', '=cmd()'),
           ('progress.leveled-up', 0, 2, 0, 'zebra-7', NULL, '[]', 'malformed', 'a tombstone'),
           ('progress.leveled-up', 0, 3, 0, NULL, 'x', '[{"key": "Zebra"}]', 'malformed', 'no ZEBRA here'),
           ('progress.leveled-up', 0, 4, 0, NULL, 'x', '[]', 'malformed', 'nothing')
"""
_ACTIONS = """
    INSERT INTO levelsync.admin_actions (at, subject, role, action, outcome, detail)
    SELECT '2026-11-20T00:00:00Z'::timestamptz + n * interval '1 day', n::text, 'shell',
           CASE n WHEN 3 THEN 'erase_user' ELSE 'sync_pair' END, CASE n WHEN 4 THEN 'failed' ELSE 'done' END, '@x'
      FROM generate_series(1, 5) n
"""


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.fixture
async def drift(engine: AsyncEngine) -> AsyncEngine:
    """A run with issues, dead letters, and rows of the audit log."""
    await fill(engine, {(3, "PLAYER"): 5}, {(3, "PLAYER"): 3})
    await execute(engine, "TRUNCATE levelsync.admin_actions", _RUN, _ISSUES, _LETTERS, _ACTIONS)
    return engine


@pytest.mark.usefixtures("drift")
async def test_every_list_is_available_as_csv(admin: httpx.AsyncClient) -> None:
    """By `format` or by `Accept`. A cell that a spreadsheet would calculate begins with an apostrophe."""
    sheets = {
        "/desync-issues": ("user_id", "3"),
        "/runs": ("requested_by", "'=1+1"),
        f"/runs/{RUN}/issues": ("specialization", "COACH"),
        "/dead-letters": ("detail", "nothing"),
        "/dead-letters?group=reason": ("reason", "malformed"),
        "/audit": ("detail", "'@x"),
    }
    for path, (column, value) in sheets.items():
        by_query = await admin.get(path, params={"format": "csv", **httpx.QueryParams(path.partition("?")[2])})
        by_header = await admin.get(path, headers={"Accept": "text/csv, application/json;q=0.5"})
        assert rows(by_query)[0][column] == value, path
        assert by_header.text == by_query.text
        assert by_header.headers["content-disposition"] == "attachment"
        for accepted in ("*/*", "application/json", "text/csv;q=0.5, application/json"):
            assert (await admin.get(path, headers={"Accept": accepted})).headers["content-type"] == "application/json"
    assert (await admin.get("/runs", params={"format": "xml"})).status_code == 422


@pytest.mark.usefixtures("drift")
async def test_a_csv_has_pages_and_nested_values(admin: httpx.AsyncClient) -> None:
    """The link asks for CSV again. An empty list has its header."""
    answer = await admin.get("/dead-letters", params={"format": "csv", "limit": 3})
    assert [one["id"] for one in rows(answer)] == ["4", "3", "2"]
    following = await admin.get(answer.links["next"]["url"].removeprefix(admin.base_url.path.rstrip("/")))
    assert [one["detail"] for one in rows(following)] == ["'=cmd()"]
    (run,) = rows(await admin.get("/runs", params={"format": "csv"}))
    assert run["counts.scanned"] == "5"
    nothing = await admin.get("/dead-letters", params={"format": "csv", "reason": "bad_time"})
    assert nothing.text.startswith("id,reason,detail,topic,")


@pytest.mark.usefixtures("drift")
async def test_issues_have_six_orders_and_falling_levels_first(admin: httpx.AsyncClient) -> None:
    expected = {
        "lowered": ["2 COACH", "3 COACH", "1 PLAYER", "2 PLAYER"],
        "user": ["1 PLAYER", "2 COACH", "2 PLAYER", "3 COACH"],
        "specialization": ["2 COACH", "3 COACH", "1 PLAYER", "2 PLAYER"],
        "kind": ["1 PLAYER", "2 COACH", "3 COACH", "2 PLAYER"],
        "difference": ["2 PLAYER", "3 COACH", "1 PLAYER", "2 COACH"],
        "status": ["3 COACH", "1 PLAYER", "2 COACH", "2 PLAYER"],
    }
    for order, pairs in expected.items():
        found = [one for (one,) in await pages(admin, f"/runs/{RUN}/issues?limit=1&sort={order}")]
        assert [f"{one['user_id']} {one['specialization']}" for one in found] == pairs, order
        assert {one["user_id"] for one in found if one["lowered"]} == {2, 3}
        assert "place" not in found[0]


@pytest.mark.usefixtures("drift")
@pytest.mark.parametrize(
    ("query", "users"),
    [
        ("kind=missing_license", [2]),
        ("status=confirmed", [2, 1]),
        ("specialization=coach", [2, 3]),
        ("lowered=true", [2, 3]),
    ],
)
async def test_issues_are_filtered(admin: httpx.AsyncClient, query: str, users: list[int]) -> None:
    assert [one["user_id"] for one in (await admin.get(f"/runs/{RUN}/issues?{query}")).json()] == users


@pytest.mark.usefixtures("drift")
async def test_the_audit_log_is_read_by_admins(admin: httpx.AsyncClient, client: Client) -> None:
    """An instructor is refused, and the refusal leaves a row."""
    refused = await client("instructor", "2").get("/audit")
    assert (refused.status_code, refused.json()["detail"]) == (403, "This needs the role admin; yours is instructor.")
    newest = (await admin.get("/audit", params={"limit": 1})).json()[0]
    assert (newest["subject"], newest["action"], newest["outcome"]) == ("2", "read_audit", "refused")
    found = await pages(admin, "/audit?limit=2&since=2026-11-22T00:00:00Z&outcome=done")
    assert [[one["subject"] for one in page] for page in found] == [["5", "3"], ["2"]]
    for query, subjects in ({"action": "erase_user"}, ["3"]), ({"subject": "4"}, ["4"]), ({"outcome": "failed"}, ["4"]):
        assert [one["subject"] for one in (await admin.get("/audit", params=query)).json()] == subjects
    assert (await admin.get("/audit", params={"cursor": "WzEsMl0"})).status_code == 422


@pytest.mark.usefixtures("drift")
async def test_letters_are_found_by_their_text(admin: httpx.AsyncClient) -> None:
    """Case is ignored in the detail, but not in key, value and headers."""
    found = {
        text: [one["id"] for one in (await admin.get("/dead-letters", params={"text": text})).json()]
        for text in ("zebra", "Zebra", "%", "nothing")
    }
    assert found == {"zebra": [3, 2], "Zebra": [3, 1], "%": [], "nothing": [4]}
    assert (await admin.get("/dead-letters", params={"text": "a\0b"})).status_code == 422
