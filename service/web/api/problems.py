"""Problems (RFC 9457), and the middleware of every request: its id, time limit, log line and headers."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admin.audit import refuse
from service.admin.database import within
from service.admin.identity import AdminError, Busy, Forbidden, NoSuch, NotSignedIn, Refused
from service.web.api.backend import backend_of, path_arguments

MEDIA_TYPE = "application/problem+json"
_STATUS = {NotSignedIn: 401, Forbidden: 403, NoSuch: 404, Refused: 422, Busy: 503}
_BEARER = 'Bearer realm="levelsync"'


class Fault(BaseModel):
    """A fault in one part of the request."""

    model_config = ConfigDict(frozen=True)

    where: str = Field(description="The part of the request, for example `body.direction` or `query.limit`.")
    detail: str


class Problem(BaseModel):
    """A problem (RFC 9457). `request_id` is also in the logs and in the audit log."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] | None = Field(None, description="With 422: each part that is wrong.")


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, errors: Sequence[Fault] | None = None
) -> JSONResponse:
    """Return the response with a problem."""
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=detail, request_id=request_id, errors=list(errors or []) or None)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    app.add_exception_handler(AdminError, _answer_admin_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)


async def _answer_admin_error(request: Request, error: Exception) -> Response:
    if isinstance(error, Refused | NoSuch) and not error.is_audited:
        await _audit_refusal(request, str(error))
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return problem(status, str(error), _headers(error))


def _headers(error: Exception) -> dict[str, str]:
    match error:
        case NotSignedIn():
            return {"WWW-Authenticate": f'{_BEARER}, error="invalid_token"'}
        case Forbidden():
            return {"WWW-Authenticate": f'{_BEARER}, error="insufficient_scope"'}
        case Busy():
            return {"Retry-After": str(error.retry_after)}
        case _:
            return {}


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is installed for nothing else
    faults = list(dict.fromkeys(_fault(one) for one in error.errors()))
    detail = "; ".join(f"{fault.where}: {fault.detail}" for fault in faults[:5])
    await _audit_refusal(request, detail)
    return problem(422, detail, errors=faults[:100])


async def _audit_refusal(request: Request, detail: str) -> None:
    """Store the audit row of a write that was refused before it began, without its body, which may contain anything."""
    action = getattr(request.state, "action", "read")
    if action not in {"read", "read_audit"}:
        await refuse(backend_of(request).engine, request.state.who, action, path_arguments(request), detail)


def _fault(found: Mapping[str, Any]) -> Fault:
    where = list(map(str, found["loc"]))
    if found["type"] == "extra_forbidden":  # its last part is a name from the body
        return Fault(where=".".join(where[:-1]), detail="This object has an unknown field")
    return Fault(where=".".join(where), detail=found["msg"])


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is installed for nothing else
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = {name.strip() for name in headers.get("Allow", "").split(",") if name.strip()}
        headers["Allow"] = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    detail = _detail(error, request)
    await _audit_refusal(request, detail)
    return problem(error.status_code, detail, headers)


def _detail(error: HTTPException, request: Request) -> str:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return "There is nothing at this path. /docs lists the endpoints."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return f"This path does not accept {request.method}."
        case _:
            return str(error.detail)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of an endpoint: these problems, and those with which every endpoint may answer."""
    every = {400, 401, 403, 422, 500, 503, *statuses}
    return {status: _document(status) for status in sorted(every)}


def _document(status: int) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    example = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": _DESCRIPTIONS[status],
        "request_id": "8f14",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    headers = {
        name: {"schema": {"type": "string"}, "description": text}
        for name, text in _RESPONSE_HEADERS.get(status, {}).items()
    }
    return {"description": _DESCRIPTIONS[status], "content": content, "headers": headers}


_RESPONSE_HEADERS = {
    401: {"WWW-Authenticate": "RFC 6750"},
    403: {"WWW-Authenticate": "RFC 6750"},
    503: {"Retry-After": "seconds"},
}
_DESCRIPTIONS = {
    400: "The body is not JSON.",
    401: "There is no token, or it is not valid.",
    403: "The token's role does not allow this.",
    404: "There is no such user, run or letter.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The request does not match the schema, or refers to something that does not exist.",
    500: "A defect of levelsync. The log contains it under the request's id.",
    503: "The database cannot answer now.",
}


log = structlog.get_logger(__name__)
PREFIX = "/api/v1/licenses/admin/sync"
LONGEST, LONGEST_WAIT = 25.0, 40.0
"""The maximum duration of a request, in seconds, and that of the request that waits for a run."""
_VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
_API_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Requests:
    """The outermost middleware: it limits a request's time, logs it, and answers where nothing else does."""

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
                late = "This took too long. Try again in a few seconds."
                await within(limit, _run(self._app, scope, receive, exchange.send), late)
            else:
                await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:  # the server stops and has waited for this request
            await exchange.answer(503, "This process is stopping. Try again.", {"Retry-After": "1"}, receive)
        except Busy as busy:
            await exchange.answer(503, str(busy), {"Retry-After": str(busy.retry_after)}, receive)
        except ClientDisconnect:  # while sending the request, so nobody waits for an answer
            log.info("the client closed the connection", method=scope["method"], path=scope["path"])
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            await exchange.answer(500, "A defect of levelsync. The log contains it under this id.", {}, receive)


class _Exchange:
    """One request and its response. Only one response is sent, also where the application answers late."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.is_api = _is_below(scope["path"], (PREFIX,))
        self.scope = _as_served(scope) if self.is_api else scope
        self._send = send
        self._request_id = request_id
        self._began = time.monotonic()
        self._status = 0
        self._over = False

    async def send(self, message: Message) -> None:
        """Send a part of the response with the common headers, unless `answer` has answered instead."""
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
        """Answer with a problem, unless a response has begun."""
        if self._status:
            return
        await problem(status, detail, headers)(self.scope, receive, self.send)
        self._over = True

    def write_line(self) -> None:
        """Log requests of the API, and every defect, without query and headers, which may contain a token."""
        if self.is_api or self._status >= 500:  # noqa: PLR2004 - HTTP's own classes
            seconds = round(time.monotonic() - self._began, 4)
            method, path = self.scope["method"], self.scope["path"]
            log.info("request", method=method, path=path, status=self._status, seconds=seconds)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _as_served(scope: Scope) -> Scope:
    """Treat HEAD as GET, whose body the server then omits, and ignore a slash at the end of the path."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "path": scope["path"].rstrip("/")}


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _VALID_ID.fullmatch(given) else uuid.uuid4().hex


def _client(scope: Scope) -> str:
    """Return the client's address; '' where the socket has none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_below(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
