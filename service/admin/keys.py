"""The keys that tokens are checked with: one shared secret, or the public keys of a JWKS URL."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import jwt
import structlog
from jwt.types import Options

from service.admin.errors import Busy, NotSignedIn
from service.settings import PREFIX, Settings, SettingsError

log = structlog.get_logger(__name__)
SYMMETRIC = ("HS256", "HS384", "HS512")
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SAFE_SECRET_BYTES = 32
"""RFC 7518, 3.2: an HS256 key has at least the size of the hash."""
FETCH_TIMEOUT = 3.0
"""Seconds that a JWKS URL may take."""
FRESH_FOR = 300.0
"""Seconds after which a key that is in use is fetched again: one that was taken back ends no later."""
STALE_FOR = 3600.0
"""Seconds for which known keys go on while the JWKS URL is away."""
FETCH_EVERY = 10.0
"""Seconds between two fetches, so that tokens with made-up key ids cannot make this service hammer the URL."""


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


class PublishedKeys:
    """Public keys behind a URL, by the key id of the token; a new id is looked up there, at most every ten seconds."""

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_TIMEOUT)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = -STALE_FOR
        self._away = False
        self._turn = asyncio.Lock()

    async def key_of(self, token: str) -> tuple[jwt.PyJWK, Sequence[str]]:
        """The key that the token names; a key has one algorithm, and never a symmetric one.

        Raises:
            NotSignedIn: it names none, or one that is not published.
            Busy: the URL does not answer, and the key is not known well enough without it.
        """
        kid = _key_id(token)
        if not self._knows(kid, FRESH_FOR):
            async with self._turn:
                if not self._knows(kid, FRESH_FOR):
                    await self._fetch()
        if self._knows(kid, STALE_FOR):
            return self._keys[kid], (self._keys[kid].algorithm_name,)
        if self._away:
            raise Busy("Tokens cannot be checked now: the server that publishes their keys does not answer.")
        raise NotSignedIn("The token is signed with a key that is not published.")

    def _knows(self, kid: str, at_most: float) -> bool:
        return kid in self._keys and time.monotonic() - self._fetched < at_most

    async def _fetch(self) -> None:
        now = time.monotonic()
        if now - self._tried < FETCH_EVERY:
            return
        self._tried = now
        try:
            published = await asyncio.wait_for(asyncio.to_thread(self._client.get_jwk_set), FETCH_TIMEOUT + 1)
        except (jwt.PyJWTError, OSError, ValueError, RecursionError) as error:
            self._away = True
            log.warning("the keys of tokens cannot be fetched", error=f"{type(error).__name__}: {error}")
            return
        self._away = False
        self._fetched = now
        self._keys = {str(key.key_id): key for key in published.keys if _is_for_signatures(key)}


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
    try:
        return PublishedKeys(str(url))
    except jwt.PyJWTError:
        raise SettingsError(f"{PREFIX}JWT_JWKS_URL: must be an http or https URL") from None


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


def _key_id(token: str) -> str:
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise NotSignedIn("The token cannot be read.") from None
    if not isinstance(kid, str) or not kid:
        raise NotSignedIn("The token does not say which key it is signed with.")
    return kid


def _is_for_signatures(key: jwt.PyJWK) -> bool:
    return bool(key.key_id) and key.public_key_use in {"sig", None} and key.algorithm_name in ASYMMETRIC
