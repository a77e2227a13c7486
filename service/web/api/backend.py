"""The dependencies of every endpoint: the backend, the sign-in and the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin import audit, sessions
from service.admin.database import check_alive
from service.admin.identity import Action, Identity, NotSignedIn
from service.admin.tokens import Authenticator
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Backend:
    """The engine, the settings and the authenticator of one process's API. The engine's time limits are short."""

    engine: AsyncEngine
    settings: Settings
    authenticator: Authenticator


def backend_of(request: Request) -> Backend:
    """Return the backend of the application that serves this request."""
    backend: Backend = request.app.state.backend
    return backend


async def sign_in(request: Request) -> None:
    """Check the token before anything else of the request is read.

    Raises:
        NotSignedIn: there is no token, or it is not valid.
        Busy: the token cannot be checked now.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotSignedIn("This needs a token: send the header Authorization: Bearer …")
    authenticator = backend_of(request).authenticator
    request.state.token = token.strip()
    async with authenticator.failures.recorded():
        request.state.who = await authenticator.identify(token.strip())


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity of the caller, and what else a function of `service.admin` needs."""

    who: Identity
    engine: AsyncEngine
    settings: Settings


@dataclass(frozen=True, slots=True)
class Allowed:
    """A dependency of an endpoint that allows an action and returns the caller.

    It refuses before the body is read. The functions of `service.admin` check the right again, because the page calls
    them without this dependency.
    """

    action: Action

    async def __call__(self, request: Request) -> Caller:
        """Check that the database answers, that the token was not signed out, and that the role allows the action.

        Raises:
            Forbidden: the role does not allow the action. The audit log has a row for it.
            NotSignedIn: somebody signed out with the token.
            Busy: the database does not answer.
        """
        backend, who = backend_of(request), request.state.who
        await check_alive(backend.engine)
        async with backend.authenticator.failures.recorded():
            await sessions.check(backend.engine, request.state.token)
        await audit.check(backend.engine, who, self.action, await _arguments(request))
        return Caller(who, backend.engine, backend.settings)


def path_arguments(request: Request) -> dict[str, Any]:
    """Return the parameters of a path as the audit log stores them: numbers as numbers."""
    return {name: int(value) if str(value).isdecimal() else value for name, value in request.path_params.items()}


async def _arguments(request: Request) -> dict[str, Any]:
    """Return the fields of the request, for the row of a refusal."""
    try:
        body = await request.json() if await request.body() else {}
    except HTTPException:
        body = {}
    return path_arguments(request) | audit.storable_fields(body)


Reader = Annotated[Caller, Depends(Allowed("read"))]
