"""What all requests have in common: bodies, ids, methods, headers, errors and log lines."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from service.admin import pairs
from service.web.api import problems
from tests.support.tokens import PREFIX, signed
from tests.support.waiting import eventually

JSON = {"Content-Type": "application/json"}


async def test_bad_bodies_are_refused_in_milliseconds(admin: httpx.AsyncClient) -> None:
    body = b'{"specialization": "PLAYER"}'
    bad: list[tuple[int, Any, dict[str, str]]] = [
        (413, b" " * 10_000_000, JSON),
        (413, b"[" * 70_000, JSON),
        (400, b"[" * 10_000 + b"]" * 10_000, JSON),
        (400, b'{"a":' * 8_000 + b"1" + b"}" * 8_000, JSON),
        (400, '{"specialization": "PLAYER"}'.encode("utf-16"), JSON),
        (400, b'{"specialization": "PL\xff"}', JSON),
        (400, b"\xef\xbb\xbf" + body, JSON),
        (400, b"{", JSON),
        (400, b"{'specialization': 'PLAYER'}", JSON),
        (400, b'{"specialization": NaN}', JSON),
        (400, b'{"specialization": ' + b"1" * 5_000 + b"}", JSON),
        (415, body, {"Content-Type": "text/plain"}),
        (415, body, {"Content-Type": "application/x-www-form-urlencoded"}),
        (415, body, {}),
        (415, body, JSON | {"Content-Encoding": "gzip"}),
        (422, b"", JSON),
        (422, b"null", JSON),
        (422, b"{}", JSON),
        (422, b'{"specialization": "PL\\u0000YER"}', JSON),
        (422, b'{"specialization": "PLAYER", "more": 1}', JSON),
        (422, b'{"specialization": 1}', JSON),
        (422, b'{"specialization": "' + b"x" * 51 + b'"}', JSON),
        (422, b'{"specialization": "\\ud800"}', JSON),
    ]
    for status, content, headers in bad:
        began = time.monotonic()
        answer = await admin.post("/user/3", content=content, headers=headers)
        assert answer.status_code == status, (content[:40], answer.text)
        assert time.monotonic() - began < 10
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 2_000
    with_charset = {"Content-Type": "application/json; charset=utf-8"}
    assert (await admin.post("/user/3", content=body, headers=with_charset)).is_success


async def test_a_body_of_unknown_length_is_not_collected(api_url: str) -> None:
    host, _, port = api_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {PREFIX}/all HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {signed()}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    writer.write(2 * (b"10000\r\n" + b" " * 65_536 + b"\r\n"))
    assert await asyncio.wait_for(reader.readline(), 10) == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", ["/page/dead-letters/", "/page/users/", f"{PREFIX}/dead-letters/"])
async def test_a_number_of_any_length_is_answered(api_url: str, path: str) -> None:
    """Such a request needs no sign-in, and each left two thousand lines in the log."""
    async with httpx.AsyncClient(base_url=api_url) as anybody:
        answer = await anybody.get(path + "9" * 5000)
    assert answer.status_code in {303, 404}


async def test_a_client_that_disconnects_is_not_an_error(api_url: str) -> None:
    host, _, port = api_url.removeprefix("http://").partition(":")
    with capture_logs() as log:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /page/sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: "the client closed the connection" in [line["event"] for line in log])
    assert "error" not in [line["log_level"] for line in log]


async def test_every_response_and_log_line_has_a_request_id(admin: httpx.AsyncClient) -> None:
    """A valid id is accepted, and another one is replaced. The log has no token."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        assert (await admin.get("/runs", headers={"X-Request-ID": "abc-1.2:3"})).headers["x-request-id"] == "abc-1.2:3"
        for insane in ("", "a b", "x" * 65, "<script>", "-x"):
            made = (await admin.get("/nowhere", headers={"X-Request-ID": insane})).headers["x-request-id"]
            assert (len(made), made.isalnum()) == (32, True)
        refused = await admin.get("/runs", params={"cursor": "x", "token": "secret"})
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
    requests = [line for line in lines if line["event"] == "request"]
    asked = {"method": "GET", "path": f"{PREFIX}/runs", "request_id": "abc-1.2:3", "client": "127.0.0.1"}
    answered = {"event": "request", "log_level": "info", "status": 200, "seconds": 0}
    assert {**requests[0], "seconds": 0} == asked | answered
    assert all("request_id" in line for line in lines)
    assert "eyJ" not in str(lines)
    assert "secret" not in str(lines)


async def test_unknown_paths_and_methods_are_problems_too(admin: httpx.AsyncClient, api_url: str) -> None:
    """405 names the allowed methods. HEAD answers like GET without a body."""
    for url in (f"{api_url}/nowhere", f"{api_url}/api", f"{api_url}/docs/../secret", f"{api_url}/docs/x.js"):
        answer = await admin.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), url
    answer = await admin.put("/all")
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    answer = await admin.options("/runs")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    answer = await admin.head("/runs")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await admin.get("/runs/")).json() == []


async def test_every_response_is_protected(admin: httpx.AsyncClient, api_url: str) -> None:
    for url in ("/runs", "/nowhere"):
        headers = (await admin.get(url)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
    policy = (await admin.get(f"{api_url}/docs")).headers["content-security-policy"]
    assert "script-src 'self';" in policy


async def test_a_defect_is_a_500_without_details(admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has the cause, and the service continues."""

    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("with a secret in it")

    monkeypatch.setattr(pairs, "desync_issues", broken)
    with capture_logs() as lines:
        answer = await admin.get("/desync-issues")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert any(line["event"] == "request failed" for line in lines)
    assert (await admin.get("/runs")).status_code == 200


async def test_a_token_in_the_query_is_ignored(admin: httpx.AsyncClient) -> None:
    """Every log on the way would store it."""
    del admin.headers["Authorization"]
    assert (await admin.get("/runs", params={"access_token": signed(), "token": signed()})).status_code == 401


async def test_a_request_that_takes_too_long_is_503(admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = asyncio.Event()

    async def endless(*_: Any, **__: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    monkeypatch.setattr(pairs, "desync_issues", endless)
    monkeypatch.setattr(problems, "LONGEST", 0.3)
    answer = await admin.get("/desync-issues")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    await asyncio.wait_for(given_up.wait(), 30)


async def test_an_unknown_field_is_not_repeated(admin: httpx.AsyncClient) -> None:
    """The name of a field may be a secret in the wrong place, or a script."""
    sent = {"specialization": "PLAYER", "hunter2": 1, "<script>": 2}
    answer = await admin.post("/user/3", json=sent)
    told = {"where": "body", "detail": "This object has an unknown field"}
    assert (answer.status_code, answer.json()["errors"]) == (422, [told])
    assert "hunter2" not in answer.text
