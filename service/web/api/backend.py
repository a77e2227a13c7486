"""What every endpoint works with, and who asks."""

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
    """One process's API: its own engine, because its bounds are shorter than the roles', and its keys."""

    engine: AsyncEngine
    settings: Settings
    authenticator: Authenticator


def backend_of(request: Request) -> Backend:
    """The backend of the application that serves this request."""
    backend: Backend = request.app.state.backend
    return backend


async def sign_in(request: Request) -> None:
    """Find out who asks, before anything else of the request is read.

    Raises:
        NotSignedIn: no token, or a bad one.
        Busy: it cannot be checked now.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotSignedIn("A token is needed: Authorization: Bearer …")
    authenticator = backend_of(request).authenticator
    request.state.token = token.strip()
    async with authenticator.failures.noted():
        request.state.who = await authenticator.identify(token.strip())


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what to ask: everything that a function of `service.admin` needs of a request."""

    who: Identity
    engine: AsyncEngine
    settings: Settings


@dataclass(frozen=True, slots=True)
class Allowed:
    """A dependency of an endpoint: who asks, once it is clear that they may and that the database answers."""

    action: Action

    async def __call__(self, request: Request) -> Caller:
        """Check the right.

        Raises:
            Forbidden: their role may not; it is in the audit log then.
            NotSignedIn: somebody signed out with the token.
            Busy: the database does not answer.
        """
        backend, who = backend_of(request), request.state.who
        await check_alive(backend.engine)
        async with backend.authenticator.failures.noted():
            await sessions.check(backend.engine, request.state.token)
        await audit.check(backend.engine, who, self.action, await _arguments(request))
        return Caller(who, backend.engine, backend.settings)


def path_arguments(request: Request) -> dict[str, Any]:
    """What a path names, as the audit log has it elsewhere."""
    return {name: int(value) if str(value).isdecimal() else value for name, value in request.path_params.items()}


async def _arguments(request: Request) -> dict[str, Any]:
    """What was asked for, for the row of a refusal."""
    try:
        body = await request.json() if await request.body() else {}
    except HTTPException:
        body = {}
    return path_arguments(request) | audit.what_was_sent(body)


Reader = Annotated[Caller, Depends(Allowed("read"))]
