"""Find the identity and the role of a token."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import jwt
from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.database import ANSWERS_WITHIN, busy_if_unavailable, within
from service.admin.identity import ROLES, Identity, NotSignedIn, Role, user_id_of
from service.admin.keys import decode, make_keys
from service.admin.sessions import FailedSignIns
from service.settings import PREFIX, Settings, SettingsError

ABSENT = object()
"""The result of `RolesClaim.find` for a token without the claim."""
_POINTER = re.compile(r"(/([^~]|~0|~1)*)+")


class RolesClaim:
    """The claim that contains the roles, as JWT_ROLES_CLAIM names it.

    A claim with exactly this name has precedence (`https://example.com/roles`). Otherwise the setting is a dotted path
    (`realm_access.roles`). A setting that begins with `/` is a JSON Pointer (RFC 6901), for example
    `/resource_access/my.client/roles`.

    Raises:
        SettingsError: the setting is empty, or begins with `/` and is not a JSON Pointer.
    """

    def __init__(self, setting: str) -> None:
        self._name = setting
        self._is_pointer = setting.startswith("/")
        if not setting or (self._is_pointer and not _POINTER.fullmatch(setting)):
            raise SettingsError(f"{PREFIX}JWT_ROLES_CLAIM: must be a claim's name, a dotted path or a JSON Pointer")
        self._path = _names(setting) if self._is_pointer else setting.split(".")

    def find(self, claims: dict[str, Any]) -> Any:
        """Return the claim's value, or `ABSENT`.

        Raises:
            NotSignedIn: the path leads through a value that is not an object.
        """
        if not self._is_pointer and self._name in claims:
            return claims[self._name]
        held: Any = claims
        for name in self._path:
            if not isinstance(held, dict):
                raise NotSignedIn("The token's roles are neither a string nor a list of strings.")
            if name not in held:
                return ABSENT
            held = held[name]
        return held

    def put(self, claims: dict[str, Any], roles: list[str]) -> None:
        """Write the roles to the place from which `find` reads them."""
        *parents, leaf = [self._name] if "://" in self._name else self._path
        for name in parents:
            claims = claims.setdefault(name, {})
        claims[leaf] = roles


def _names(pointer: str) -> list[str]:
    return [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]


LEEWAY = 10
"""Seconds by which the clocks of the signer and of this process may differ."""
_LONGEST_TOKEN, _LONGEST_SUBJECT = 8192, 320
_FIND_USER = """
    SELECT u.id, u.role::text AS role, coalesce(to_jsonb(u) ->> 'is_active', 'true') = 'true' AS active
      FROM users u WHERE {condition}
"""
# A subject of digits is only looked up as an id, so that nobody becomes another user by an unusual address.
_BY_ID = text(_FIND_USER.format(condition="u.id = CAST(:subject AS bigint)"))
_BY_EMAIL = text(_FIND_USER.format(condition="u.email = :subject"))
_WRONG = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidAudienceError: "The token is for another audience.",
    jwt.InvalidIssuerError: "The token is from another issuer.",
    jwt.InvalidAlgorithmError: "The token is signed with an algorithm that is not accepted.",
    jwt.InvalidSignatureError: "The token's signature is wrong.",
    jwt.MissingRequiredClaimError: "The token lacks a required claim: exp, sub, or a configured iss or aud.",
    jwt.exceptions.InvalidSubjectError: "The token's subject is not text.",
}


def subjects_are_users(settings: Settings) -> bool:
    """Return whether the subject of a token refers to a row of `users`, whose role the token can then have.

    By default they do where the tokens are signed with the secret, because the application signs them. An identity
    provider's subjects do not. Its subject "1" is not the application's user 1.
    """
    if settings.jwt_roles_from_users is None:
        return settings.jwt_secret is not None
    return settings.jwt_roles_from_users


class Authenticator:
    """Checks tokens with the configured key.

    Raises:
        SettingsError: on creation, when the settings of the keys or of the roles claim are wrong.
    """

    def __init__(self, settings: Settings, engine: AsyncEngine) -> None:
        self._keys = make_keys(settings)
        self._checks = {"issuer": settings.jwt_issuer, "audience": settings.jwt_audience, "leeway": LEEWAY}
        self._roles_claim = RolesClaim(settings.jwt_roles_claim)
        self._names_users = subjects_are_users(settings)
        self._engine = engine
        self.failures = FailedSignIns(engine)

    async def identify(self, token: str) -> Identity:
        """Check a token and return the identity that it names.

        Raises:
            NotSignedIn: the token is not valid.
            Busy: the token cannot be checked now.
        """
        claims = await self._claims(token)
        subject = _subject(claims)
        expires_at = _moment(claims["exp"])
        if claims.get("type", "access") != "access":
            raise NotSignedIn("The token is not an access token.")
        held = self._roles_claim.find(claims)
        if held is not ABSENT:
            user_id = user_id_of(subject) if self._names_users else None
            return Identity(subject, _strongest(held), expires_at, user_id)
        if not self._names_users:
            return Identity(subject, "none", expires_at)
        user_id, role = await self._user(subject)
        return Identity(subject, role, expires_at, user_id)

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _LONGEST_TOKEN:
            raise NotSignedIn("The token cannot be read.")
        key, algorithms = await self._keys.key_of(token)
        try:
            return decode(token, key, algorithms, **self._checks)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise NotSignedIn(_WRONG.get(type(error), "The token cannot be read.")) from None

    async def _user(self, subject: str) -> tuple[int, Role]:
        """Return the id and the current role of the user. The application's own tokens name only the user."""
        number = user_id_of(subject)
        query, value = (_BY_EMAIL, subject) if number is None else (_BY_ID, number)
        with busy_if_unavailable():
            row = await within(ANSWERS_WITHIN, self._row(query, value), "The database does not answer.")
        if row is None or not row.active:
            raise NotSignedIn("The token's user does not exist any more.")
        return row.id, _strongest(row.role)

    async def _row(self, query: TextClause, subject: int | str) -> Row[Any] | None:
        async with self._engine.connect() as conn:
            return (await conn.execute(query, {"subject": subject})).one_or_none()


def _subject(claims: dict[str, Any]) -> str:
    subject: str = claims["sub"]
    if not subject.strip() or len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        raise NotSignedIn("The token's subject is empty, too long or not printable.")
    return subject


def _moment(seconds: Any) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        raise NotSignedIn("The token's expiry is not a valid time.") from None


def _strongest(held: Any) -> Role:
    """Return the strongest known role of the names, without regard to case.

    SQLAlchemy stores the names of an enum, which are often in upper case.
    """
    named = [held] if isinstance(held, str) else held
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise NotSignedIn("The token's roles are neither a string nor a list of strings.")
    folded = {name.lower() for name in named}
    return next((role for role in ROLES if role in folded), "none")
