"""Around every request: its id, its time, its line in the log, its headers, and the answer to a defect."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Iterable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admin.database import within
from service.admin.identity import Busy
from service.web.api.problems import problem

log = structlog.get_logger(__name__)
PREFIX = "/api/v1/licenses/admin/sync"
LONGEST, LONGEST_WAIT = 25.0, 40.0
"""Seconds of one request; the second for the one that waits for a run."""
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
_API_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Requests:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        with structlog.contextvars.bound_contextvars(request_id=request_id, client=_client(scope)):
            exchange = _Exchange(scope, send, request_id)
            await self._serve(exchange, receive)
            exchange.write_line()

    async def _serve(self, exchange: _Exchange, receive: Receive) -> None:
        scope = exchange.scope
        try:
            if exchange.is_api:
                limit = LONGEST_WAIT if scope["path"] == f"{PREFIX}/all" else LONGEST
                late = "This took too long; try again in a few seconds."
                await within(limit, _run(self._app, scope, receive, exchange.send), late)
            else:
                await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:  # the server's stop: it waits no longer for what is under way
            await exchange.answer(503, "This process is stopping; try again.", {"Retry-After": "1"}, receive)
        except Busy as busy:
            await exchange.answer(503, str(busy), {"Retry-After": str(busy.retry_after)}, receive)
        except ClientDisconnect:  # in the middle of what they sent: nobody waits for an answer
            log.info("the client went away", method=scope["method"], path=scope["path"])
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            await exchange.answer(500, "A defect of levelsync; the log has it under this request's id.", {}, receive)


class _Exchange:
    """One request and its response, which is sent once, whoever is late."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.is_api = _is_below(scope["path"], (PREFIX,))
        self.scope = _as_served(scope) if self.is_api else scope
        self._send = send
        self._request_id = request_id
        self._began = time.monotonic()
        self._status = 0
        self._over = False

    async def send(self, message: Message) -> None:
        """Pass a part of the response on, with our headers; nothing after the answer that was given instead."""
        if self._over:
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["X-Request-ID"] = self._request_id
            for name, value in (_HEADERS | (_API_HEADERS if self.is_api else {})).items():
                headers.setdefault(name, value)
        await self._send(message)

    async def answer(self, status: int, detail: str, headers: dict[str, str], receive: Receive) -> None:
        """Answer with a problem, unless an answer has begun already."""
        if self._status:
            return
        await problem(status, detail, headers)(self.scope, receive, self.send)
        self._over = True

    def write_line(self) -> None:
        """One line a request of the API, and one for every defect. No query, no header: a token may be in either."""
        if self.is_api or self._status >= 500:  # noqa: PLR2004 - HTTP's own classes
            seconds = round(time.monotonic() - self._began, 4)
            method, path = self.scope["method"], self.scope["path"]
            log.info("request", method=method, path=path, status=self._status, seconds=seconds)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _as_served(scope: Scope) -> Scope:
    """HEAD is GET without its body, which the server leaves out; a slash at the end makes no other path."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "path": scope["path"].rstrip("/")}


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _client(scope: Scope) -> str:
    """The address of who asks; '' on a socket without one."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_below(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
