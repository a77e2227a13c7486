"""`levelsync token`: print a token for development, signed with the configured secret."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from service.cli import context, output
from service.cli.exits import WrongUse

if TYPE_CHECKING:
    from service.settings import Settings


class TokenRole(StrEnum):
    """The application's roles, the strongest first."""

    ADMIN = "admin"
    INSTRUCTOR = "instructor"
    STUDENT = "student"


def token(
    role: Annotated[TokenRole, typer.Option(help="The role of the token's bearer.")],
    subject: Annotated[str, typer.Option(help="The token's subject: a user's id or email.")] = "1",
    ttl: Annotated[str, typer.Option(help="How long it is valid, such as 30m, 1h or 7d.")] = "1h",
) -> None:
    """Print a token signed with LEVELSYNC_JWT_SECRET (for development)."""
    output.print_line(sign(context.settings(servers=False), role, subject, _read_ttl(ttl)))


def sign(settings: Settings, role: str, subject: str, ttl: timedelta) -> str:
    """Return an HS256 token that this installation accepts, with its issuer, its audience and its claim for roles.

    Raises:
        WrongUse: no secret is configured.
    """
    import jwt

    from service.admin.keys import SAFE_SECRET_BYTES

    if settings.jwt_secret is None:
        raise WrongUse(
            "no secret to sign with: set LEVELSYNC_JWT_SECRET, or change to the folder where `levelsync up` runs"
        )
    secret = settings.jwt_secret.get_secret_value()
    if len(secret.encode()) < SAFE_SECRET_BYTES:
        output.print_note(f"levelsync: warning: LEVELSYNC_JWT_SECRET is shorter than {SAFE_SECRET_BYTES} bytes")
    with warnings.catch_warnings(action="ignore"):  # PyJWT warns about the same
        return jwt.encode(_claims(settings, role, subject, ttl), secret, algorithm="HS256")


def _claims(settings: Settings, role: str, subject: str, ttl: timedelta) -> dict[str, Any]:
    from service.admin.tokens import RolesClaim

    now = datetime.now(UTC)
    claims: dict[str, Any] = {
        "sub": subject,
        "type": "access",
        "jti": uuid4().hex,
        "iat": now,
        "nbf": now,
        "exp": now + ttl,
    }
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    RolesClaim(settings.jwt_roles_claim).put(claims, [role])
    return claims


def _read_ttl(text: str) -> timedelta:
    from service.settings import parse_duration

    try:
        ttl = parse_duration(text)
    except ValueError as error:
        raise WrongUse(f"--ttl {text}: {error}") from error
    if not isinstance(ttl, timedelta) or not ttl:
        raise WrongUse(f"--ttl {text}: a token must be valid for some time")
    return ttl
