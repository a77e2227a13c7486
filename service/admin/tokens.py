"""From a token to an identity and its role."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import jwt
from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.database import ANSWERS_WITHIN, asked, within
from service.admin.identity import ROLES, Identity, NotSignedIn, Role, user_id_of
from service.admin.keys import decode, make_keys
from service.admin.sessions import FailedSignIns
from service.settings import PREFIX, Settings, SettingsError

ABSENT = object()
"""The token has no such claim."""
_POINTER = re.compile(r"(/([^~]|~0|~1)*)+")


class RolesClaim:
    """The claim of roles.

    The literal name counts first (`https://example.com/roles`), then a dotted path (`realm_access.roles`). A value
    that begins with `/` is a JSON Pointer (RFC 6901), as `/resource_access/my.client/roles`.

    Raises:
        SettingsError: it begins with `/` and is not a JSON Pointer, or it is empty.
    """

    def __init__(self, setting: str) -> None:
        self._name = setting
        self._is_pointer = setting.startswith("/")
        if not setting or (self._is_pointer and not _POINTER.fullmatch(setting)):
            raise SettingsError(f"{PREFIX}JWT_ROLES_CLAIM: must be a claim's name, a dotted path or a JSON Pointer")
        self._path = _names(setting) if self._is_pointer else setting.split(".")

    def find(self, claims: dict[str, Any]) -> Any:
        """Return what the claim holds, or `ABSENT`.

        Raises:
            NotSignedIn: the path leads through something that has no names.
        """
        if not self._is_pointer and self._name in claims:
            return claims[self._name]
        held: Any = claims
        for name in self._path:
            if not isinstance(held, dict):
                raise NotSignedIn("The token's roles are neither text nor a list of texts.")
            if name not in held:
                return ABSENT
            held = held[name]
        return held

    def put(self, claims: dict[str, Any], roles: list[str]) -> None:
        """Write the roles where `find` reads them."""
        *parents, leaf = [self._name] if "://" in self._name else self._path
        for name in parents:
            claims = claims.setdefault(name, {})
        claims[leaf] = roles


def _names(pointer: str) -> list[str]:
    return [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]


LEEWAY = 10
"""Seconds by which the clocks of who signs and who checks may differ."""
_LONGEST_TOKEN, _LONGEST_SUBJECT = 8192, 320
_FIND_USER = """
    SELECT u.id, u.role::text AS role, coalesce(to_jsonb(u) ->> 'is_active', 'true') = 'true' AS active
      FROM users u WHERE {condition}
"""
# A subject of digits is an id and nothing else, so that nobody becomes another user by an unusual address.
_BY_ID = text(_FIND_USER.format(condition="u.id = CAST(:subject AS bigint)"))
_BY_EMAIL = text(_FIND_USER.format(condition="u.email = :subject"))
_WRONG = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidAudienceError: "The token is for another audience.",
    jwt.InvalidIssuerError: "The token is from another issuer.",
    jwt.InvalidAlgorithmError: "The token is signed in a way that is not accepted.",
    jwt.InvalidSignatureError: "The token's signature is wrong.",
    jwt.MissingRequiredClaimError: "The token lacks a claim that is needed: exp, sub, or a configured iss or aud.",
    jwt.exceptions.InvalidSubjectError: "The token's subject is not text.",
}


def subjects_are_users(settings: Settings) -> bool:
    """Return whether a token's subject is a row of `users`, which may give it its role.

    The application signs with the secret, so by default its subjects are. An identity provider's are its own: its
    person "1" is nobody's user 1.
    """
    if settings.jwt_roles_from_users is None:
        return settings.jwt_secret is not None
    return settings.jwt_roles_from_users


class Authenticator:
    """Checks tokens with the configured key.

    Raises:
        SettingsError: when it is made, where the settings name no key, or not what belongs to it.
    """

    def __init__(self, settings: Settings, engine: AsyncEngine) -> None:
        self._keys = make_keys(settings)
        self._checks = {"issuer": settings.jwt_issuer, "audience": settings.jwt_audience, "leeway": LEEWAY}
        self._roles_claim = RolesClaim(settings.jwt_roles_claim)
        self._names_users = subjects_are_users(settings)
        self._engine = engine
        self.failures = FailedSignIns(engine)

    async def identify(self, token: str) -> Identity:
        """Say whose token it is, after every check.

        Raises:
            NotSignedIn: it is not good.
            Busy: it cannot be checked now.
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
        """The application's own tokens name the user alone: their role is the row's, now."""
        number = user_id_of(subject)
        query, value = (_BY_EMAIL, subject) if number is None else (_BY_ID, number)
        with asked():
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
        raise NotSignedIn("The token's subject is not a name.")
    return subject


def _moment(seconds: Any) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        raise NotSignedIn("The token's end is not a time.") from None


def _strongest(held: Any) -> Role:
    """Return the strongest role that is named, in any case: SQLAlchemy stores an enum's names in upper case."""
    named = [held] if isinstance(held, str) else held
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise NotSignedIn("The token's roles are neither text nor a list of texts.")
    folded = {name.lower() for name in named}
    return next((role for role in ROLES if role in folded), "none")
