"""Signing in with a token, and out."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.admin import ended_sessions
from service.admin.audit import refuse
from service.admin.errors import AdminError, Forbidden, NotSignedIn
from service.admin.permissions import allow
from service.page import session
from service.page.render import HEADERS, render


async def sign_in(request: Request) -> Response:
    """The form, and what it sends.

    Raises:
        Forbidden: the form is not this page's.
        Busy: the token cannot be checked now.
    """
    visitor = session.visitor_of(request)
    if request.method != "POST":
        return _form(request, visitor)
    failures = request.app.state.parts.authenticator.failures
    try:
        form = await session.read_form(request, visitor)
    except AdminError as error:
        await failures.note(error)
        raise
    token = form.get("token", "").strip().removeprefix("Bearer ").strip()
    try:
        return await _begin(request, token, _own_path(form.get("next", "/")))
    except (NotSignedIn, Forbidden) as error:
        if isinstance(error, NotSignedIn):
            await failures.note(error)
        return _form(request, visitor, 403 if isinstance(error, Forbidden) else 401, wrong=str(error))


async def sign_out(request: Request) -> Response:
    """End the session: this browser forgets it, and no process accepts its token again."""
    parts = request.app.state.parts
    token = session.token_of(request)
    try:
        await session.read_form(request, token)
    except AdminError as error:
        await parts.authenticator.failures.note(error)
        raise
    with contextlib.suppress(NotSignedIn):  # it has expired: that is as good
        await ended_sessions.end(parts.engine, token, (await parts.authenticator.identify(token)).expires_at)
    parts.memory.end(token)
    response = RedirectResponse("/page/sign-in", 303, HEADERS)
    session.end(request, response)
    return response


def ask_to_sign_in(request: Request, error: AdminError) -> Response:
    """For a request without a session, or with one that is not good any more."""
    response: Response
    if request.method == "POST":
        response = _form(request, session.visitor_of(request), 401, wrong=f"{error} Nothing was done.")
    else:
        had_one = session.has_session(request)
        come_back = f"{request.url.path}?{request.url.query}".rstrip("?")
        query = urlencode({"next": come_back} | ({"ended": "yes"} if had_one else {}))
        response = RedirectResponse(f"/page/sign-in?{query}", 303, HEADERS)
    session.end(request, response)
    return response


async def _begin(request: Request, token: str, path: str) -> Response:
    if not token:
        raise NotSignedIn("Paste a token first.")
    if len(token) > session.LONGEST_TOKEN:
        raise NotSignedIn(f"The token is longer than the {session.LONGEST_TOKEN} characters that a browser can keep.")
    parts = request.app.state.parts
    who = await parts.authenticator.identify(token)
    await ended_sessions.check(parts.engine, token)
    try:
        allow(who, "read")
    except Forbidden as error:
        await refuse(parts.engine, who, "sign_in", {}, str(error))
        raise
    response = RedirectResponse(path, 303, HEADERS)
    session.begin(request, response, token, who.expires_at)
    return response


def _form(request: Request, visitor: str, status: int = 200, **values: Any) -> Response:
    ended = "Your session has ended: sign in again." if "ended" in request.query_params else ""
    values = {"wrong": ended, "next": _own_path(request.query_params.get("next", "/")), **values}
    response = render("sign_in.html", {"csrf": session.csrf_of(visitor), **values}, status)
    session.remember(request, response, visitor)
    return response


def _own_path(path: str) -> str:
    """A path of this page, and no other site's."""
    return path if path.startswith(("/page/", "/?")) and "\\" not in path else "/"
