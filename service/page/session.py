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
    token = request.cookies.get(SESSION)
    if not token:
        raise NotSignedIn("Sign in to go on.")
    return token


def begin(request: Request, response: Response, token: str, expires_at: datetime) -> None:
    """Keep the token in the browser until it expires, where no script can read it and no other site send it."""
    left = max(0, int((expires_at - datetime.now(UTC)).total_seconds()))
    _set(request, response, SESSION, token, left)
    response.delete_cookie(VISITOR)


def end(response: Response) -> None:
    """Forget the session in this browser."""
    response.delete_cookie(SESSION)


def visitor_of(request: Request) -> str:
    """A secret of somebody who has not signed in yet, made where there is none; `remember` keeps it."""
    return request.cookies.get(VISITOR) or secrets.token_urlsafe(32)


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
    """A browser says over HTTPS which site a form is on; the form's mark counts in any case."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Forbidden("This form was sent by another site.")


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    encrypted = "https" in {request.url.scheme, forwarded}
    # Lax, not strict: a link in an alert has to open the page signed in. Nothing is written by a link.
    response.set_cookie(name, value, max_age=seconds, secure=encrypted, httponly=True, samesite="lax")
