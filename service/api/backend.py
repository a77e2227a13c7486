"""What every endpoint works with, and who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin import audit, ended_sessions
from service.admin.database import check_alive
from service.admin.errors import NotSignedIn
from service.admin.identity import Identity
from service.admin.permissions import Action
from service.admin.tokens import Authenticator
from service.settings import Settings

_LONGEST_ARGUMENTS = 2000
"""Characters of a body that a row keeps."""


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
    try:
        request.state.who = await authenticator.identify(token.strip())
    except NotSignedIn as error:
        await authenticator.failures.note(error)
        raise


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what to ask: everything that a function of `service.admin` needs of a request."""

    who: Identity
    engine: AsyncEngine
    settings: Settings


def allowed(action: Action) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: who asks, once it is clear that they may and that the database answers.

    Raises:
        Forbidden: their role may not; it is in the audit log then.
        Busy: the database does not answer.
    """

    async def caller(request: Request) -> Caller:
        backend, who = backend_of(request), request.state.who
        request.state.action = action
        await check_alive(backend.engine)
        await ended_sessions.check(backend.engine, request.state.token)
        await audit.check(backend.engine, who, action, await _arguments(request))
        return Caller(who, backend.engine, backend.settings)

    return caller


def path_arguments(request: Request) -> dict[str, Any]:
    """What a path names, as the audit log has it elsewhere."""
    return {name: int(value) if str(value).isdecimal() else value for name, value in request.path_params.items()}


async def _arguments(request: Request) -> dict[str, Any]:
    """What was asked for, for the row of a refusal."""
    try:
        body = await request.json() if await request.body() else {}
    except HTTPException:
        body = {}
    sent = body if isinstance(body, dict) and len(str(body)) <= _LONGEST_ARGUMENTS else {}
    return path_arguments(request) | sent


Reader = Annotated[Caller, Depends(allowed("read"))]
