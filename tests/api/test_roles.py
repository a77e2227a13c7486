"""Which role may do what at every endpoint, and the audit log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin import sessions
from service.admin.identity import NotSignedIn
from service.web.api.app import openapi_document
from tests.support.api import Client
from tests.support.tables import count, execute, fill, licenses, read
from tests.support.tokens import PREFIX, signed

JSON = {"Content-Type": "application/json"}
STAFF, ADMINS = {"admin", "instructor"}, {"admin"}
ENDPOINTS: dict[tuple[str, str], tuple[set[str], Any]] = {
    ("GET", "/desync-issues"): (STAFF, None),
    ("POST", "/user/{user_id}"): (STAFF, {"specialization": "PLAYER"}),
    ("POST", "/user/{user_id}/all"): (STAFF, {}),
    ("POST", "/all"): (ADMINS, {}),
    ("GET", "/runs"): (STAFF, None),
    ("GET", "/runs/{run_id}"): (STAFF, None),
    ("GET", "/runs/{run_id}/issues"): (STAFF, None),
    ("POST", "/runs/{run_id}/cancel"): (ADMINS, None),
    ("GET", "/dead-letters"): (STAFF, None),
    ("GET", "/dead-letters/{letter_id}"): (STAFF, None),
    ("POST", "/dead-letters/replay"): (ADMINS, {"ids": [1]}),
    ("POST", "/dead-letters/discard"): (ADMINS, {"ids": [1]}),
    ("GET", "/audit"): (ADMINS, None),
}
ROLES = ("admin", "instructor", "student", "owner")


def documented() -> set[tuple[str, str]]:
    """Return the endpoints of the API's own document."""
    paths = openapi_document()["paths"].items()
    return {(method.upper(), path.removeprefix(PREFIX)) for path, methods in paths for method in methods}


async def call(client: httpx.AsyncClient, endpoint: tuple[str, str], body: Any) -> httpx.Response:
    """Call an endpoint for user 3 and for ids that do not exist."""
    method, path = endpoint
    url = path.format(user_id=3, run_id=uuid4(), letter_id=1)
    return await client.request(method, url, json=body, headers={"Prefer": "respond-async"})


def test_no_endpoint_is_left_out() -> None:
    assert documented() - set(ENDPOINTS) == set()


async def test_every_endpoint_lets_in_its_roles_and_no_other(client: Client, engine: AsyncEngine) -> None:
    """403 names the required role and leaves a row in the audit log. 401 precedes every other check."""
    await fill(engine, {(3, "PLAYER"): 1}, {})
    for endpoint in sorted(documented()):
        allowed, body = ENDPOINTS[endpoint]
        for role in ROLES:
            answer = await call(client(role), endpoint, body)
            if role in allowed:
                assert answer.status_code in {200, 202, 404}, (endpoint, role, answer.text)
            else:
                assert answer.status_code == 403, (endpoint, role, answer.text)
                assert "admin" in answer.json()["detail"]
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    refused = "SELECT role, count(*) FROM levelsync.admin_actions WHERE outcome = 'refused' GROUP BY 1"
    found = dict(tuple(row) for row in await read(engine, refused))
    assert found["student"] == found["none"] == len(documented())
    assert found["instructor"] == sum("instructor" not in ENDPOINTS[one][0] for one in documented())


async def test_without_a_good_token_nothing_is_read(client: Client) -> None:
    nobody = client(None)
    headers: list[dict[str, str]] = [
        {},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer abc"},
        {"Authorization": signed()},
        {"Authorization": f"Bearer {signed(type='refresh')}"},
        {"Cookie": f"token={signed()}"},
    ]
    for given in headers:
        for method, path in sorted(documented()):
            url = path.format(user_id=999, run_id="x", letter_id=999)
            answer = await nobody.request(method, url, content=b"{" * 100_000, headers=given)
            assert answer.status_code == 401, (method, path, given)
            assert answer.headers["www-authenticate"].startswith('Bearer realm="levelsync"')
            assert answer.headers["content-type"] == "application/problem+json"
            assert "eyJ" not in answer.text


async def test_every_write_and_every_refusal_leaves_one_row(client: Client, engine: AsyncEngine) -> None:
    """The row has the request, its arguments and its address, but no token and no text of an unknown field."""
    await fill(engine, {(3, "PLAYER"): 1}, {})
    admin, instructor, student = ("admin", "boss@example.org"), ("instructor", "2"), ("student", "1")
    pair, key = {"specialization": "PLAYER", "direction": "highest"}, str(uuid4())
    calls: list[tuple[tuple[str, str], str, Any, tuple[str, str]]] = [
        (admin, "/user/3", pair, ("sync_pair", "done")),
        (admin, "/user/999", pair, ("sync_pair", "refused")),
        (admin, "/user/999/all", {}, ("sync_user", "refused")),
        (admin, f"/runs/{key}/cancel", None, ("cancel_run", "refused")),
        (admin, "/user/3", pair | {"hunter2": True}, ("sync_pair", "refused")),
        (admin, "/all", {}, ("request_run", "done")),
        (instructor, "/all", {"dry_run": False}, ("request_run", "refused")),
        (student, "/user/3", {"specialization": "PLAYER"}, ("sync_pair", "refused")),
    ]
    for number, (caller, path, body, _) in enumerate(calls):
        headers = {"X-Request-ID": f"{number}", "Idempotency-Key": key, "Prefer": "respond-async"}
        await client(*caller).post(path, json=body, headers=headers)
    rows = await read(engine, "SELECT * FROM levelsync.admin_actions ORDER BY id")
    found = [(row.request_id, (row.role, row.subject), (row.action, row.outcome)) for row in rows]
    assert found == [(f"{number}", caller, done) for number, (caller, _, _, done) in enumerate(calls)]
    assert [row.arguments for row in rows[:5]] == [
        {"user_id": 3} | pair,
        {"user_id": 999} | pair,
        {"user_id": 999, "direction": "progress_to_license"},
        {"run_id": key},
        {"user_id": 3},
    ]
    assert (rows[5].arguments["run_id"], rows[5].arguments["dry_run"]) == (key, True)
    assert [row.arguments for row in rows[6:]] == [{"dry_run": False}, {"user_id": 3, "specialization": "PLAYER"}]
    assert rows[0].detail == "PLAYER: license row created at level 1"
    assert rows[4].detail == "body: This object has an unknown field"
    assert {row.client_address for row in rows} == {"127.0.0.1"}
    assert "eyJ" not in json.dumps([list(map(str, row)) for row in rows])
    assert await count(engine, "levelsync.outbox WHERE topic = 'sync.reconcile-requested'") == 1


async def test_a_sync_is_undone_when_its_row_cannot_be_written(client: Client, engine: AsyncEngine) -> None:
    """Both are written in one transaction."""
    await fill(engine, {(3, "PLAYER"): 1}, {})
    await execute(engine, "ALTER TABLE levelsync.admin_actions ADD CHECK (action = 'no')")
    answer = await client("instructor", "2").post("/user/3", json={"specialization": "PLAYER"})
    assert answer.status_code == 500
    assert await licenses(engine) == {}


async def test_a_refusal_is_recorded_whatever_its_arguments_contain(client: Client, engine: AsyncEngine) -> None:
    """PostgreSQL cannot store NUL and lone surrogates, which are valid JSON, so they are escaped."""
    body = b'{"specialization": "P\\u0000\\ud800L"}'
    assert (await client("student").post("/user/3", content=body, headers=JSON)).status_code == 403
    assert (await client("admin").post("/user/3", content=body, headers=JSON)).status_code == 422
    rows = await read(engine, "SELECT role, arguments ->> 'specialization' AS name FROM levelsync.admin_actions")
    assert ("student", "P\\x00\\ud800L") in [tuple(row) for row in rows]


BODIES_REFUSED: list[tuple[int, bytes, dict[str, str], str]] = [
    (400, b"{", JSON, "The body is not JSON: Expecting property name enclosed in double quotes at character 1."),
    (400, b'{"specialization": "PL\xff"}', JSON, "The body is not UTF-8."),
    (413, b" " * 70_000, JSON, "The body has more than 65536 bytes."),
    (415, b"{}", {"Content-Type": "text/plain"}, "The body must be application/json, without a Content-Encoding."),
    (422, b"null", JSON, "The body is null. Send an object, or no body."),
    (422, b"{}", JSON, "body.specialization: Field required"),
]


async def test_every_write_with_a_refused_body_is_recorded(client: Client, engine: AsyncEngine) -> None:
    """Even where the body cannot be read. The row repeats nothing that was sent."""
    await fill(engine, {}, {})
    for status, content, headers, _ in BODIES_REFUSED:
        answer = await client("admin").post("/user/3", content=content, headers=headers)
        assert answer.status_code == status, content[:20]
    await client("student").post("/user/3", content=b"{", headers=JSON)
    await client("admin").post("/user/x", json={"specialization": "PLAYER"})
    for list_of in ("/runs", "/audit"):  # reading
        assert (await client("admin").get(list_of, params={"cursor": "x"})).status_code == 422
    rows = await read(engine, "SELECT * FROM levelsync.admin_actions ORDER BY id")
    expected: list[Any] = [("admin", "sync_pair", {"user_id": 3}, detail) for *_, detail in BODIES_REFUSED]
    expected += [("student", "sync_pair", {"user_id": 3}, BODIES_REFUSED[0][3])]
    expected += [("admin", "sync_pair", {"user_id": "x"}, rows[-1].detail)]
    assert [(row.role, row.action, row.arguments, row.detail) for row in rows] == expected
    assert {(row.outcome, row.client_address) for row in rows} == {("refused", "127.0.0.1")}


async def test_the_use_of_a_signed_out_token_is_recorded(client: Client, engine: AsyncEngine) -> None:
    admin = client("admin")
    kept = admin.headers["Authorization"].removeprefix("Bearer ")
    await sessions.end(engine, kept, datetime.now(UTC) + timedelta(hours=1))
    assert (await admin.get("/runs")).status_code == 401
    rows = await read(engine, "SELECT action, outcome, detail FROM levelsync.admin_actions")
    assert rows == [("sign_in", "refused", "The token was signed out. Sign in with a new one.")]


async def test_failed_sign_ins_are_one_row_for_each_minute_and_address(client: Client, engine: AsyncEngine) -> None:
    """Guessing cannot fill the table. A request without a token is not a sign-in."""
    nobody = client(None)
    await nobody.get("/runs")
    for _ in range(3):
        await nobody.get("/runs", headers={"Authorization": f"Bearer {signed(exp=1)}"})
    columns = "subject, role, action, outcome, times, detail, client_address"
    rows = await read(engine, f"SELECT {columns} FROM levelsync.admin_actions")
    assert rows == [("", "none", "sign_in", "refused", 3, "The token has expired.", "127.0.0.1")]


async def test_failures_of_too_many_addresses_share_a_row(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared row names no address, because it counts several."""
    monkeypatch.setattr(sessions, "_MAX_ADDRESSES", 1)
    failures = sessions.FailedSignIns(engine)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        with structlog.contextvars.bound_contextvars(client=address):
            await failures.record(NotSignedIn("The token has expired."))
    rows = await read(engine, "SELECT client_address, times FROM levelsync.admin_actions ORDER BY id")
    assert [tuple(row) for row in rows] == [("192.0.2.1", 1), ("others", 2)]
