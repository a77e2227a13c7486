"""Who may sign in, what they may do, and how forged requests are refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from events import ProgressLeveledUp
from service.settings import Settings
from service.store.tables import dead_letters
from service.web.api.problems import PREFIX
from service.web.page import visit
from service.web.page.session import SESSION, VISITOR, csrf_of
from tests.support.api import NO_TLS, serving
from tests.support.tables import PLAYER, execute, fill, read
from tests.support.tokens import SECRET, token

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIGNER = Settings(_env_file=None, jwt_secret=SecretStr(SECRET))
RUN = "00000000-0000-4000-8000-000000000001"
READ = ("/", "/page/runs", "/page/users?q=5", "/page/users/5", "/page/dead-letters")
Form = tuple[str, str, dict[str, str]]
"""Where a form is sent, what the audit log calls that, and the form's fields."""
ADMIN_ONLY: tuple[Form, ...] = (
    ("/page/runs", "request_run", {"direction": "highest"}),
    (f"/page/runs/{RUN}/execute", "request_run", {}),
    (f"/page/runs/{RUN}/cancel", "cancel_run", {}),
    ("/page/dead-letters/replay", "replay_letters", {"reason": "malformed"}),
    ("/page/dead-letters/discard", "discard_letters", {"reason": "malformed"}),
)
WRITES: tuple[Form, ...] = (
    *ADMIN_ONLY,
    ("/page/users/5/sync", "sync_user", {"direction": "highest"}),
    ("/page/sign-out", "sign_in", {}),
)
AUDIT = "SELECT role, action, outcome FROM levelsync.admin_actions ORDER BY id"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(page_settings: Settings) -> AsyncIterator[str]:
    """The URL of the role `api`, without Kafka."""
    async with serving(page_settings) as served:
        yield served


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _nothing_on_record(page_engine: AsyncEngine) -> None:
    """Remove the actions and the dead letters of the test before."""
    await execute(page_engine, "TRUNCATE levelsync.admin_actions, levelsync.dead_letters")


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=20, verify=NO_TLS) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def admin(visitor: httpx.AsyncClient) -> httpx.AsyncClient:
    visitor.cookies.set(SESSION, token_of("admin"))
    return visitor


@pytest_asyncio.fixture(loop_scope="module")
async def instructor(visitor: httpx.AsyncClient) -> httpx.AsyncClient:
    visitor.cookies.set(SESSION, token_of("instructor"))
    return visitor


def token_of(role: str, ttl: timedelta = timedelta(hours=1)) -> str:
    return token(SIGNER, role, ttl=ttl)


def mark_in(answer: httpx.Response) -> str:
    """Return the mark against forgery in a page's form."""
    found = re.search(r'name="csrf" value="(\w+)"', answer.text)
    assert found, answer.text
    return found[1]


async def sign_in(client: httpx.AsyncClient, pasted: str, **fields: str) -> httpx.Response:
    mark = mark_in(await client.get("/page/sign-in"))
    return await client.post("/page/sign-in", data={"csrf": mark, "token": pasted, **fields})


def mark_of(client: httpx.AsyncClient) -> dict[str, str]:
    """Return the field that a form of this session needs."""
    return {"csrf": csrf_of(client.cookies[SESSION])}


@pytest.mark.parametrize("path", READ)
async def test_without_a_session_a_page_asks_to_sign_in_and_comes_back(visitor: httpx.AsyncClient, path: str) -> None:
    answer = await visitor.get(path)
    assert answer.status_code == 303
    form = await visitor.get(answer.headers["location"])
    assert f'name="next" value="{path}"' in form.text


async def test_a_token_signs_in_and_the_cookie_is_guarded(visitor: httpx.AsyncClient) -> None:
    answer = await sign_in(visitor, token_of("admin"), next="/page/runs?before=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/page/runs?before=x")
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION))
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Secure" not in cookie  # plain http on loopback
    lasts = re.search(r"Max-Age=(\d+)", cookie)
    assert lasts
    assert 3500 <= int(lasts[1]) <= 3600
    assert (await visitor.get("/")).status_code == 200


async def test_the_cookie_is_secure_behind_https(visitor: httpx.AsyncClient) -> None:
    visitor.headers["X-Forwarded-Proto"] = "https"
    mark = mark_in(first := await visitor.get("/page/sign-in"))
    sent = {"Cookie": first.headers["set-cookie"].partition(";")[0]}  # httpx sends no secure cookie over plain http
    fields = {"csrf": mark, "token": token_of("admin")}
    answer = await visitor.post("/page/sign-in", data=fields, headers=sent)
    cookies = answer.headers.get_list("set-cookie")
    cookie = next(c for c in cookies if c.startswith(f"__Host-{SESSION}="))
    assert {"Secure", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    planted = await visitor.get("/", headers={"Cookie": f"{SESSION}={fields['token']}"})
    assert planted.status_code == 303  # a cookie without the prefix may be from another host


@pytest.mark.parametrize(
    ("pasted", "status", "said"),
    [
        ("", 401, "Paste a token first."),
        ("nonsense", 401, "The token cannot be read."),
        ("expired", 401, "The token has expired."),
        ("student", 403, "This needs the role admin or instructor; yours is student."),
        ("x" * 4000, 401, "longer than the 3900 characters"),
    ],
)
async def test_a_refused_sign_in_has_a_reason(visitor: httpx.AsyncClient, pasted: str, status: int, said: str) -> None:
    made = {"expired": token_of("admin", timedelta(minutes=-5)), "student": token_of("student")}
    answer = await sign_in(visitor, made.get(pasted, pasted))
    assert answer.status_code == status
    assert said in answer.text
    assert SESSION not in visitor.cookies


async def test_a_session_that_has_expired_asks_to_sign_in_again(visitor: httpx.AsyncClient) -> None:
    visitor.cookies.set(SESSION, token_of("admin", timedelta(minutes=-5)))
    answer = await visitor.get("/page/runs")
    assert answer.headers["location"] == "/page/sign-in?next=%2Fpage%2Fruns&ended=yes"
    assert "Your session has ended" in (await visitor.get(answer.headers["location"])).text


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "/docs", "javascript:alert(1)"]
)
async def test_signing_in_leads_to_no_other_site(visitor: httpx.AsyncClient, wanted: str) -> None:
    assert (await sign_in(visitor, token_of("admin"), next=wanted)).headers["location"] == "/"


@pytest.mark.parametrize(("path", "action", "fields"), WRITES)
async def test_forms_without_their_mark_or_from_another_site_are_refused(
    admin: httpx.AsyncClient, page_engine: AsyncEngine, path: str, action: str, fields: dict[str, str]
) -> None:
    """A foreign page cannot act for an admin."""
    await fill(page_engine, progress={PLAYER: 3})
    mark = mark_of(admin)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    other = {"csrf": csrf_of(token_of("instructor"))}
    for sent, headers in ((fields, {}), (fields | other, {}), (fields | mark, foreign)):
        assert (await admin.post(path, data=sent, headers=headers)).status_code == 403
    rows = await read(page_engine, "SELECT action, outcome, client_address, times FROM levelsync.admin_actions")
    assert {(row.action, row.outcome, row.client_address) for row in rows} == {(action, "refused", "127.0.0.1")}
    assert sum(row.times for row in rows) == 3
    assert (await admin.get("/")).status_code == 200  # still signed in


async def test_a_planted_cookie_signs_nobody_in(visitor: httpx.AsyncClient) -> None:
    """Another site could plant the cookie and know its mark, but its origin is different."""
    visitor.cookies.set(VISITOR, "planted")
    fields = {"csrf": csrf_of("planted"), "token": token_of("admin")}
    for origin in ("http://evil.example", "null"):
        answer = await visitor.post("/page/sign-in", data=fields, headers={"Origin": origin})
        assert answer.status_code == 403
    own = str(visitor.base_url).rstrip("/")
    assert (await visitor.post("/page/sign-in", data=fields, headers={"Origin": own})).status_code == 303


async def test_the_form_to_sign_in_has_its_mark_too(visitor: httpx.AsyncClient) -> None:
    """Otherwise another site could sign somebody in as somebody else."""
    answer = await visitor.post("/page/sign-in", data={"token": token_of("admin")})
    assert answer.status_code == 403
    assert SESSION not in visitor.cookies


@pytest.mark.parametrize(("path", "action", "fields"), ADMIN_ONLY)
async def test_an_instructor_cannot_do_what_the_page_does_not_offer(
    instructor: httpx.AsyncClient, page_engine: AsyncEngine, path: str, action: str, fields: dict[str, str]
) -> None:
    mark = mark_of(instructor)
    answer = await instructor.post(path, data=fields | mark)
    assert answer.status_code == 403
    assert "yours is instructor" in answer.text
    assert [tuple(row) for row in await read(page_engine, AUDIT)] == [("instructor", action, "refused")]


async def test_a_student_s_form_is_refused_by_its_action(visitor: httpx.AsyncClient, page_engine: AsyncEngine) -> None:
    """The audit log names the action, and the failed sign-in too."""
    pasted = token_of("student")
    await sign_in(visitor, pasted)
    visitor.cookies.set(SESSION, pasted)
    answer = await visitor.post("/page/users/5/sync", data={"direction": "highest", "csrf": csrf_of(pasted)})
    assert answer.status_code == 403
    recorded = [tuple(row) for row in await read(page_engine, AUDIT)]
    assert recorded == [("student", "sign_in", "refused"), ("student", "sync_user", "refused")]


LARGE = 9999999999999999999
NONSENSE: tuple[tuple[str, str, dict[str, str], int, dict[str, Any]], ...] = (
    ("/page/users/5/sync", "sync_user", {"direction": "up"}, 422, {"user_id": "5", "direction": "up"}),
    ("/page/users/5/sync", "sync_user", {"specialization": "\0"}, 422, {"user_id": "5", "specialization": "\\x00"}),
    ("/page/runs", "request_run", {"user_id": "me"}, 422, {"user_id": "me"}),
    ("/page/runs", "request_run", {"user_id": "me" * 2000}, 422, {}),
    (f"/page/runs/{RUN}/execute", "request_run", {}, 404, {"run_id": RUN}),
    ("/page/dead-letters/discard", "discard_letters", {}, 422, {}),
    (f"/page/users/{LARGE}/sync", "sync_user", {}, 404, {"user_id": LARGE, "direction": "progress_to_license"}),
)
"""Forms, what the audit log calls them, how they are answered, and the arguments that the log stores."""


async def test_an_invalid_form_leaves_one_row(admin: httpx.AsyncClient, page_engine: AsyncEngine) -> None:
    for path, _, fields, status, _ in NONSENSE:
        assert (await admin.post(path, data=fields | mark_of(admin))).status_code == status, path
    rows = await read(page_engine, "SELECT action, outcome, arguments FROM levelsync.admin_actions ORDER BY id")
    assert [tuple(row) for row in rows] == [(action, "refused", sent) for _, action, _, _, sent in NONSENSE]


async def test_an_instructor_sees_no_button_of_admins(instructor: httpx.AsyncClient, page_engine: AsyncEngine) -> None:
    await fill(page_engine, progress={(5, "PLAYER"): 3})
    shown = {path: (await instructor.get(path)).text for path in READ if "q=" not in path}
    assert "Start the dry run" not in shown["/page/runs"]
    assert "Replay" not in shown["/page/dead-letters"]
    assert "Discard" not in shown["/page/dead-letters"]
    assert "Create the missing row of PLAYER" in shown["/page/users/5"]
    assert "/page/audit" not in shown["/"]  # neither in the navigation nor among the keys
    assert (await instructor.get("/page/audit")).status_code == 403


async def test_signing_out_forgets_the_session(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor, token_of("admin"))
    mark = mark_of(visitor)
    kept = visitor.cookies[SESSION]
    assert (await visitor.get("/")).status_code == 200
    assert (await visitor.post("/page/sign-out", data=mark)).headers["location"] == "/page/sign-in"
    assert (await visitor.get("/")).status_code == 303
    visitor.cookies.set(SESSION, kept)
    assert (await visitor.get("/")).status_code == 303  # a copy of the cookie is invalid too
    visitor.cookies.clear()
    assert "was signed out" in (await sign_in(visitor, kept)).text
    runs = await visitor.get(f"{PREFIX}/runs", headers={"Authorization": f"Bearer {kept}"})
    assert runs.status_code == 401


async def test_every_answer_has_a_strict_content_policy(admin: httpx.AsyncClient) -> None:
    for path in (*READ, "/page/sign-in", "/page/nothing", "/page/users/99999999", "/page/runs?before=x"):
        answer = await admin.get(path)
        policy = answer.headers["content-security-policy"]
        for part in ("default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?! src=\"/page/assets/)|<style|\sstyle=|\son\w+=|javascript:", answer.text)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/page/nothing", 404),
        *((f"/page/users/{rest}", 404) for rest in ("99999999999999999999", "0", "5/sync?specialization=GOALKEEPER")),
        *((f"/page/runs/{RUN}{rest}", 404) for rest in ("", "?after=x")),
        *((f"/page/dead-letters/{rest}", 404) for rest in ("1", "99999999999999999999999", "burn?id=1")),
        *((f"/page/runs?before={time}", 422) for time in ("x", f"9999-12-31T23:59:59-23:59~{RUN}")),
        *(
            (f"/page/dead-letters?{query}", 422)
            for query in ("before=99999999999999999999999", "reason=none", "user_id=x")
        ),
        *((f"/page/{rest}", 422) for rest in ("dead-letters/replay", "users/5/sync?direction=up", "users?q=%00")),
    ],
)
async def test_bad_addresses_are_answered_with_a_sentence(admin: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await admin.get(path)
    assert (answer.status_code, "Traceback" in answer.text) == (status, False)
    assert "<h1" in answer.text


async def test_a_form_that_is_too_large_is_refused(admin: httpx.AsyncClient) -> None:
    mark = mark_of(admin)
    answer = await admin.post("/page/runs", data=mark | {"direction": "x" * 1_000_000})
    assert answer.status_code == 422


async def test_two_processes_with_the_same_key_share_sessions(
    admin: httpx.AsyncClient, page_settings: Settings, page_engine: AsyncEngine
) -> None:
    await fill(page_engine, progress={(5, "PLAYER"): 3})
    mark = mark_of(admin)
    async with serving(page_settings) as other, httpx.AsyncClient(base_url=other, cookies=admin.cookies) as client:
        fields = mark | {"direction": "highest"}
        assert (await client.post("/page/users/5/sync", data=fields, timeout=20)).status_code == 200


async def test_without_the_extra_a_page_names_it(page_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.web.page.find_spec", lambda _name: None)
    async with serving(page_settings) as served, httpx.AsyncClient(base_url=served) as client:
        answer = await client.get("/")
        assert (answer.status_code, "pip install 'levelsync[service,page]'" in answer.text) == (501, True)
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/openapi.json")).status_code == 200


async def test_an_unreachable_database_is_a_503_page(page_settings: Settings) -> None:
    away = page_settings.model_copy(update={"database_url": SecretStr("postgresql://postgres@127.0.0.1:1/postgres")})
    cookies = {SESSION: token_of("admin")}
    async with serving(away) as served, httpx.AsyncClient(base_url=served, timeout=20, cookies=cookies) as client:
        for path in READ:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "The database cannot answer now" in answer.text
            assert 'hx-trigger="every 5s"' in answer.text


async def test_a_form_that_never_ends_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without a session, because each form would hold a connection for ever."""
    monkeypatch.setattr(visit, "LONGEST", 0.2)
    host, _, port = url.removeprefix("http://").partition(":")
    for path in ("/page/sign-in", "/page/sign-out"):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {SESSION}=x\r\nContent-Length: 10\r\n\r\na"
        writer.write(head.encode())
        assert await asyncio.wait_for(reader.readline(), 10) == b"HTTP/1.1 503 Service Unavailable\r\n"
        writer.close()
        await writer.wait_closed()


async def letter(engine: AsyncEngine, **columns: Any) -> str:
    """Add a dead letter; return the address of its page."""
    row = {"topic": "progress.leveled-up", "partition": 0, "reason": "malformed", "detail": "x"} | columns
    async with engine.begin() as conn:
        added = await conn.execute(insert(dead_letters).values(row).returning(dead_letters.c.id))
        return f"/page/dead-letters/{added.scalar_one()}"


async def test_a_list_says_whether_a_letter_would_apply_now(admin: httpx.AsyncClient, page_engine: AsyncEngine) -> None:
    """It does not repeat the stored reason, which the column beside it shows."""
    missing = "there is no user 901"
    for offset, (user, reason, detail) in enumerate(
        [
            (901, "unknown_user", missing),
            (901, "malformed", "it was not JSON"),
            (5, "unknown_user", "there is no user 5"),
            (5, "refused_by_database", "no_seven"),
        ]
    ):
        event = ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=3).to_kafka()
        headers = [{"key": name, "value": value.decode()} for name, value in event.headers]
        columns = {"value": event.value, "headers": headers, "record_timestamp": 0}
        page = await letter(page_engine, **columns, offset=offset, reason=reason, detail=detail)
        if offset == 0:
            assert (await admin.get(page)).text.count(missing) == 1
    shown = (await admin.get("/page/dead-letters")).text
    cells = [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall('data-label="Now">(.*?)</td>', shown)]
    assert cells == [
        "not known only a replay shows whether PostgreSQL still refuses it",
        "would apply its user exists now",
        f"would not apply unknown_user: {missing}",
        "would not apply",
    ]


async def test_a_letter_is_shown_whatever_was_published(admin: httpx.AsyncClient, page_engine: AsyncEngine) -> None:
    """Text that UTF-8 cannot encode, bytes that are no text, nesting, and an impossible time."""
    sent = {
        b'{"x":"\\ud800"}': "\\ud800",
        b'["\\udfff\\ud800"]': "\\udfff\\ud800",
        b"\xff\xfe\x00\x1b": "\\xff\\xfe",
        b"[" * 20_000: "[[[[",
        b"\x1b[2J\xe2\x80\xaetxet": r"\u001b[2J\u202etxet",
        None: "a tombstone",
    }
    row = {"record_timestamp": 10**17, "key": b"\xff", "headers": []}
    for offset, (value, seen) in enumerate(sent.items()):
        answer = await admin.get(await letter(page_engine, **row, offset=offset, value=value))
        assert (answer.status_code, seen in answer.text) == (200, True), value


async def test_a_letter_full_of_headers_is_a_small_page(admin: httpx.AsyncClient, page_engine: AsyncEngine) -> None:
    headers = [{"key": "first", "value": "x" * 100_000}, *({"key": f"h{n}", "value": None} for n in range(20_000))]
    address = await letter(page_engine, offset=9, record_timestamp=0, key=None, headers=headers, value=b"{}")
    answer = await admin.get(address)
    assert (answer.status_code, "The record has 20,001 headers" in answer.text) == (200, True)
    assert len(answer.text) < 50_000


async def test_a_defect_is_a_page_without_details(admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("the insides")

    monkeypatch.setattr("service.web.page.overview.read_overview", broken)
    with capture_logs() as log:
        answer = await admin.get("/")
    assert "request failed" in [line["event"] for line in log]
    assert (answer.status_code, "the insides" in answer.text) == (500, False)
    assert "A defect of levelsync" in answer.text
