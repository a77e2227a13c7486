"""Who uses the page: the token is the session, in a cookie, and it is checked at every request.

So any process with the same key takes up any session, and a session ends no later than its token.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from service.admin.errors import Forbidden, NotSignedIn, Refused

SESSION, VISITOR = "levelsync_session", "levelsync_visitor"
LONGEST_TOKEN = 3900
"""Characters: browsers drop a cookie above 4096 without a word."""
_LARGEST_FORM = 64 * 1024


def token_of(request: Request) -> str:
    """The token of the session.

    Raises:
        NotSignedIn: there is no session.
    """
    token = request.cookies.get(_name(request, SESSION))
    if not token:
        raise NotSignedIn("Sign in to go on.")
    return token


def begin(request: Request, response: Response, token: str, expires_at: datetime) -> None:
    """Keep the token in the browser until it expires, where no script can read it and no other site send it."""
    left = max(0, int((expires_at - datetime.now(UTC)).total_seconds()))
    _set(request, response, SESSION, token, left)
    _delete(request, response, VISITOR)


def has_session(request: Request) -> bool:
    """Whether the browser sent a session, good or not."""
    return _name(request, SESSION) in request.cookies


def end(request: Request, response: Response) -> None:
    """Forget the session in this browser."""
    _delete(request, response, SESSION)


def visitor_of(request: Request) -> str:
    """A secret of somebody who has not signed in yet, made where there is none; `remember` keeps it."""
    return request.cookies.get(_name(request, VISITOR)) or secrets.token_urlsafe(32)


def remember(request: Request, response: Response, visitor: str) -> None:
    """Keep the visitor's secret for as long as it takes to sign in."""
    _set(request, response, VISITOR, visitor, 3600)


def csrf_of(secret: str) -> str:
    """What a form has to send back. Nobody can make it without the cookie's secret, and it does not give that away."""
    return hmac.new(secret.encode(), b"levelsync: this form is ours", sha256).hexdigest()


async def read_form(request: Request, secret: str) -> dict[str, str]:
    """The fields of a form that this page made, for this session.

    Raises:
        Forbidden: another site sent it, or it lacks the session's mark.
        Refused: it is too large, or no form.
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
        raise Forbidden("This form was not made by this page, or is from another session: open it again.")
    return form


def _check_site(request: Request) -> None:
    """A browser says which site a form is on, over HTTPS and on loopback in one header, else in another.

    The form's mark counts in any case, but whoever can plant a cookie here knows the mark that belongs to it.
    """
    site = request.headers.get("sec-fetch-site")
    same = _is_own_origin(request) if site is None else site == "same-origin"
    if not same:
        raise Forbidden("This form was sent by another site.")


def _is_own_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:  # no browser of today
        return True
    hosts = {request.headers.get("host"), *request.headers.get("x-forwarded-host", "").split(",")}
    return origin.partition("://")[2] in {host.strip() for host in hosts if host}


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    encrypted = _is_encrypted(request)
    # Lax, not strict: a link in an alert has to open the page signed in. Nothing is written by a link.
    response.set_cookie(_name(request, name), value, max_age=seconds, secure=encrypted, httponly=True, samesite="lax")


def _delete(request: Request, response: Response, name: str) -> None:
    encrypted = _is_encrypted(request)
    response.delete_cookie(_name(request, name), secure=encrypted, httponly=True, samesite="lax")


def _name(request: Request, name: str) -> str:
    """Over HTTPS with the prefix that lets no other host, and no page without encryption, set the cookie."""
    return f"__Host-{name}" if _is_encrypted(request) else name


def _is_encrypted(request: Request) -> bool:
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in {request.url.scheme, forwarded}
