"""The session's cookie, and signing in and out.

The cookie contains the token itself. Any process with the same key therefore accepts any session, and a session ends no
later than its token.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.admin import sessions
from service.admin.audit import refuse
from service.admin.identity import AdminError, Forbidden, NotSignedIn, Refused, allow
from service.web.page.render import HEADERS, render

SESSION, VISITOR = "levelsync_session", "levelsync_visitor"
LONGEST_TOKEN = 3900
"""Characters. Browsers silently drop a cookie above 4096."""
_LARGEST_FORM = 64 * 1024


def token_of(request: Request) -> str:
    """Return the token of the session.

    Raises:
        NotSignedIn: there is no session.
    """
    token = request.cookies.get(_name(request, SESSION))
    if not token:
        raise NotSignedIn("Sign in to continue.")
    return token


def begin(request: Request, response: Response, token: str, expires_at: datetime) -> None:
    """Set a cookie with the token that expires with it. No script can read it, and no other site's form sends it."""
    left = max(0, int((expires_at - datetime.now(UTC)).total_seconds()))
    _set(request, response, SESSION, token, left)
    _delete(request, response, VISITOR)


def has_session(request: Request) -> bool:
    """Return whether the browser sent a session, valid or not."""
    return _name(request, SESSION) in request.cookies


def end(request: Request, response: Response) -> None:
    """Delete the session's cookie."""
    _delete(request, response, SESSION)


def visitor_of(request: Request) -> str:
    """Return the secret of a visitor who has not signed in yet, or a new one, which `remember` then stores."""
    return request.cookies.get(_name(request, VISITOR)) or secrets.token_urlsafe(32)


def remember(request: Request, response: Response, visitor: str) -> None:
    """Set a cookie with the visitor's secret. The visitor can sign in for an hour."""
    _set(request, response, VISITOR, visitor, 3600)


def csrf_of(secret: str) -> str:
    """Return the value that a form must send back. It depends on the cookie's secret and does not reveal it."""
    return hmac.new(secret.encode(), b"levelsync: this form is ours", sha256).hexdigest()


async def read_form(request: Request, secret: str) -> dict[str, str]:
    """Return the fields of a form that this page rendered for this session.

    Raises:
        Forbidden: another site sent the form, or its field `csrf` is not the session's.
        Refused: it is too large, or not a form.
    """
    _check_site(request)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise Refused("This form is too large.")
    try:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50))
    except ValueError:
        raise Refused("This is not a form of this page.") from None
    if not hmac.compare_digest(form.pop("csrf", "").encode(), csrf_of(secret).encode()):
        raise Forbidden("This form is not from this page, or is from another session. Open it again.")
    return form


def _check_site(request: Request) -> None:
    """Check that the form is on this site.

    Browsers send the site of a form in `Sec-Fetch-Site` over HTTPS and on loopback, and in `Origin` otherwise. The
    field `csrf` alone is not enough, because somebody who can set a cookie here knows the value that belongs to it.

    Raises:
        Forbidden: the form is on another site.
    """
    site = request.headers.get("sec-fetch-site")
    same = _is_own_origin(request) if site is None else site == "same-origin"
    if not same:
        raise Forbidden("This form was sent by another site.")


def _is_own_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:  # not a current browser
        return True
    hosts = {request.headers.get("host"), *request.headers.get("x-forwarded-host", "").split(",")}
    return origin.partition("://")[2] in {host.strip() for host in hosts if host}


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    encrypted = _is_encrypted(request)
    # Lax and not strict, because a link in an alert must open the page signed in. Following a link writes nothing.
    response.set_cookie(_name(request, name), value, max_age=seconds, secure=encrypted, httponly=True, samesite="lax")


def _delete(request: Request, response: Response, name: str) -> None:
    encrypted = _is_encrypted(request)
    response.delete_cookie(_name(request, name), secure=encrypted, httponly=True, samesite="lax")


def _name(request: Request, name: str) -> str:
    """Return the cookie's name. Over HTTPS it has a prefix, so that only pages of this host over HTTPS can set it."""
    return f"__Host-{name}" if _is_encrypted(request) else name


def _is_encrypted(request: Request) -> bool:
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in {request.url.scheme, forwarded}


async def sign_in(request: Request) -> Response:
    """Show the form to sign in, or start a session with the token that it sends.

    Raises:
        Forbidden: the form is not from this page.
        Busy: the token cannot be checked now.
    """
    visitor = visitor_of(request)
    if request.method != "POST":
        return _form(request, visitor)
    failures = request.app.state.parts.authenticator.failures
    try:
        form = await read_form(request, visitor)
    except AdminError as error:
        await failures.record(error)
        raise
    token = form.get("token", "").strip().removeprefix("Bearer ").strip()
    try:
        return await _begin(request, token, _own_path(form.get("next", "/")))
    except (NotSignedIn, Forbidden) as error:
        if isinstance(error, NotSignedIn):
            await failures.record(error)
        return _form(request, visitor, 403 if isinstance(error, Forbidden) else 401, wrong=str(error))


async def sign_out(request: Request) -> Response:
    """End the session: delete its cookie and refuse its token in every process."""
    parts = request.app.state.parts
    token = token_of(request)
    try:
        await read_form(request, token)
    except AdminError as error:
        await parts.authenticator.failures.record(error)
        raise
    with contextlib.suppress(NotSignedIn):  # the token has expired, so nobody can use it
        await sessions.end(parts.engine, token, (await parts.authenticator.identify(token)).expires_at)
    parts.memory.end(token)
    response = RedirectResponse("/page/sign-in", 303, HEADERS)
    end(request, response)
    return response


def ask_to_sign_in(request: Request, error: AdminError) -> Response:
    """Answer a request without a session, or with one that is no longer valid."""
    response: Response
    if request.method == "POST":
        response = _form(request, visitor_of(request), 401, wrong=f"{error} Nothing was done.")
    else:
        had_one = has_session(request)
        come_back = f"{request.url.path}?{request.url.query}".rstrip("?")
        query = urlencode({"next": come_back} | ({"ended": "yes"} if had_one else {}))
        response = RedirectResponse(f"/page/sign-in?{query}", 303, HEADERS)
    end(request, response)
    return response


async def _begin(request: Request, token: str, path: str) -> Response:
    if not token:
        raise NotSignedIn("Paste a token first.")
    if len(token) > LONGEST_TOKEN:
        raise NotSignedIn(f"The token is longer than the {LONGEST_TOKEN} characters that a cookie can store.")
    parts = request.app.state.parts
    who = await parts.authenticator.identify(token)
    await sessions.check(parts.engine, token)
    try:
        allow(who, "read")
    except Forbidden as error:
        await refuse(parts.engine, who, "sign_in", {}, str(error))
        raise
    response = RedirectResponse(path, 303, HEADERS)
    begin(request, response, token, who.expires_at)
    return response


def _form(request: Request, visitor: str, status: int = 200, **values: Any) -> Response:
    ended = "Your session has ended. Sign in again." if "ended" in request.query_params else ""
    values = {"wrong": ended, "next": _own_path(request.query_params.get("next", "/")), **values}
    response = render("sign_in.html", {"csrf": csrf_of(visitor), **values}, status)
    remember(request, response, visitor)
    return response


def _own_path(path: str) -> str:
    """Return the path if it is on this page, else `/`, so that no link leads to another site."""
    return path if path.startswith(("/page/", "/?")) and "\\" not in path else "/"
