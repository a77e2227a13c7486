"""The keys that tokens are checked with: one shared secret, or the public keys of a JWKS URL."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import jwt
from jwt.types import Options

from service.admin.published_keys import PublishedKeys
from service.settings import PREFIX, Settings, SettingsError

SYMMETRIC = ("HS256", "HS384", "HS512")
SAFE_SECRET_BYTES = 32
"""RFC 7518, 3.2: an HS256 key has at least the size of the hash."""


class Keys(Protocol):
    """Where the key of a token comes from."""

    async def key_of(self, token: str) -> tuple[Any, Sequence[str]]:
        """The key, and the algorithms that it may be used with, whatever the token says."""


class SharedSecret:
    """HMAC with the configured secret, and nothing else."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def key_of(self, token: str) -> tuple[str, Sequence[str]]:  # noqa: ARG002 - every token has the same key
        """The secret."""
        return self._secret, SYMMETRIC


def make_keys(settings: Settings) -> Keys:
    """The configured keys.

    Raises:
        SettingsError: none is configured, or both are, or issuer and audience are missing beside a JWKS URL.
    """
    secret, url = settings.jwt_secret, settings.jwt_jwks_url
    if (secret is None) == (url is None):
        fault = "is needed by the role api" if secret is None else "excludes the other"
        raise SettingsError(f"{PREFIX}JWT_SECRET or {PREFIX}JWT_JWKS_URL {fault}: set one of them")
    if secret is not None:
        return SharedSecret(secret.get_secret_value())
    lacking = [name for name in ("jwt_issuer", "jwt_audience") if not getattr(settings, name)]
    if lacking:
        names = " and ".join(PREFIX + name.upper() for name in lacking)
        raise SettingsError(f"{names}: must be set with {PREFIX}JWT_JWKS_URL, whose keys sign for others too")
    if not _is_web_address(str(url)):
        raise SettingsError(f"{PREFIX}JWT_JWKS_URL: must be an http or https URL")
    return PublishedKeys(str(url))


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def check_secret(settings: Settings) -> None:
    """Refuse a secret that can be guessed.

    Raises:
        SettingsError: it is shorter than 32 bytes.
    """
    secret = settings.jwt_secret
    if secret is not None and len(secret.get_secret_value().encode()) < SAFE_SECRET_BYTES:
        make = "python3 -c 'import secrets; print(secrets.token_hex(32))'"
        raise SettingsError(
            f"{PREFIX}JWT_SECRET: must have at least {SAFE_SECRET_BYTES} bytes, because whoever guesses it is an "
            f"admin; one that is good: {make}. The application that signs with it needs the same"
        )


def decode(token: str, key: Any, algorithms: Sequence[str], **checks: Any) -> dict[str, Any]:
    """The token's claims, checked; PyJWT warns of a short secret, which `serve` refuses and `up` allows."""
    options: Options = {"require": ["exp", "sub"], "verify_aud": checks.get("audience") is not None}
    with warnings.catch_warnings(action="ignore"):
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=list(algorithms), options=options, **checks)
    return claims
