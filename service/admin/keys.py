"""The keys that verify tokens: a shared secret, or an identity provider's public keys."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import warnings
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from jwt.types import Options

from service.admin.identity import Busy, NotSignedIn
from service.settings import PREFIX, Settings, SettingsError

log = structlog.get_logger(__name__)
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
FETCH_TIMEOUT = 4.0
"""Seconds that a fetch of the JWKS URL may take, from the connection to the last byte."""
MAX_BYTES = 256 * 1024
"""The maximum size of a key set, in bytes. A set of ten RSA keys with certificates has about 30 KB."""
FRESH_FOR = 300.0
"""Seconds after which a key in use is fetched again. While the URL answers, a revoked key is accepted no longer."""
STALE_FOR = 3600.0
"""Seconds for which known keys stay valid while the JWKS URL does not answer."""
FETCH_EVERY = 10.0
"""Seconds between two fetches, so that tokens with invented key ids cannot cause a fetch each."""


class PublishedKeys:
    """Public keys at a URL, by key id. An unknown id causes a fetch, at most every ten seconds."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = -STALE_FOR
        self._away = False
        self._turn = asyncio.Lock()

    async def key_of(self, token: str) -> tuple[jwt.PyJWK, Sequence[str]]:
        """Return the key that the token names, and the key's only algorithm, which is never a symmetric one.

        Raises:
            NotSignedIn: the token names no key, or a key that is not published.
            Busy: the URL does not answer, and the key is unknown or was fetched too long ago.
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
            async with asyncio.timeout(FETCH_TIMEOUT):
                published = _keys_in(await _read(self._url))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
            self._away = True
            log.warning("cannot fetch the keys of tokens", error=f"{type(error).__name__}: {error}")
            return
        self._away = False
        self._fetched = now
        self._keys = published


async def _read(url: str) -> bytes:
    """Return the body at the URL. The request runs in the event loop, so that a slow server cannot delay a stop.

    Raises:
        ValueError: the body is too large; or it is compressed, which could hide its size; or a redirect left TLS, so
            that anybody in between could send keys.
    """
    body = bytearray()
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    # The machine's certificates, not those of httpx, so that an internal CA that is installed is trusted.
    async with (
        httpx.AsyncClient(verify=ssl.create_default_context(), follow_redirects=True, max_redirects=3) as client,
        client.stream("GET", url, headers=headers, timeout=FETCH_TIMEOUT) as answer,
    ):
        answer.raise_for_status()
        schemes = [one.url.scheme for one in (*answer.history, answer)]
        if schemes[0] == "https" and set(schemes) != {"https"}:
            raise ValueError("the URL of the keys redirects to a connection without TLS")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("the set of keys is compressed")
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError(f"the set of keys has more than {MAX_BYTES} bytes")
    return bytes(body)


def _keys_in(body: bytes) -> dict[str, jwt.PyJWK]:
    """Return the keys that can sign tokens, by key id, and skip all others.

    Raises:
        ValueError: the body is not a set of keys, or contains no usable key. Known keys stay valid then.
    """
    document = json.loads(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is not a set of keys")  # noqa: TRY004 - the content of a document, not an argument
    usable = [key for key in map(_usable, listed) if key is not None]
    if not usable:
        raise ValueError("the set of keys has no usable key")
    return {str(key.key_id): key for key in usable}


def _usable(published: Any) -> jwt.PyJWK | None:
    if not isinstance(published, dict) or not isinstance(published.get("kid"), str) or not published["kid"]:
        return None
    # Tuples and not sets, because the value may be a list, which has no hash.
    if published.get("use") not in ("sig", None) or published.get("alg") not in (*ASYMMETRIC, None):
        return None
    try:
        key = jwt.PyJWK(published)
    except Exception as error:  # noqa: BLE001 - the bytes come from outside, and libraries fail on them in many ways
        log.warning("cannot read a published key", kid=published["kid"][:100], error=type(error).__name__)
        return None
    return key if key.algorithm_name in ASYMMETRIC else None


def _key_id(token: str) -> str:
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise NotSignedIn("The token cannot be read.") from None
    if not isinstance(kid, str) or not kid:
        raise NotSignedIn("The token does not name the key that it is signed with (kid).")
    return kid


SYMMETRIC = ("HS256", "HS384", "HS512")
SAFE_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash."""


class Keys(Protocol):
    """A source of the keys that verify tokens."""

    async def key_of(self, token: str) -> tuple[Any, Sequence[str]]:
        """Return the key and the algorithms that it may be used with, whichever the token names."""


class SharedSecret:
    """The configured secret, which verifies HMAC signatures only."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def key_of(self, token: str) -> tuple[str, Sequence[str]]:  # noqa: ARG002 - every token has the same key
        """Return the secret."""
        return self._secret, SYMMETRIC


def make_keys(settings: Settings) -> Keys:
    """Return the configured source of keys.

    Raises:
        SettingsError: neither a secret nor a JWKS URL is set, or both are, or the URL is not valid, or the issuer or
            the audience is missing beside the URL.
    """
    secret, url = settings.jwt_secret, settings.jwt_jwks_url
    if (secret is None) == (url is None):
        fault = "is needed by the role api" if secret is None else "cannot be set together"
        raise SettingsError(f"{PREFIX}JWT_SECRET or {PREFIX}JWT_JWKS_URL {fault}: set one of them")
    if secret is not None:
        return SharedSecret(secret.get_secret_value())
    needed = {"JWT_ISSUER": settings.jwt_issuer, "JWT_AUDIENCE": settings.jwt_audience}
    lacking = [name for name, value in needed.items() if not value]
    if lacking:
        names = " and ".join(PREFIX + name for name in lacking)
        raise SettingsError(f"{names}: must be set with {PREFIX}JWT_JWKS_URL, whose keys also sign for other services")
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
    """Refuse a secret that is short enough to be guessed.

    Raises:
        SettingsError: it is shorter than 32 bytes.
    """
    secret = settings.jwt_secret
    if secret is not None and len(secret.get_secret_value().encode()) < SAFE_SECRET_BYTES:
        make = "python3 -c 'import secrets; print(secrets.token_hex(32))'"
        raise SettingsError(
            f"{PREFIX}JWT_SECRET: must have at least {SAFE_SECRET_BYTES} bytes, because anybody who guesses it becomes "
            f"an admin. Create one with: {make}. The application that signs tokens needs the same secret"
        )


def decode(token: str, key: Any, algorithms: Sequence[str], **checks: Any) -> dict[str, Any]:
    """Verify the token and return its claims.

    PyJWT warns about a short secret. `serve` refuses such a secret and `up` allows it, so the warning is ignored.
    """
    options: Options = {"require": ["exp", "sub"], "verify_aud": checks.get("audience") is not None}
    with warnings.catch_warnings(action="ignore"):
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=list(algorithms), options=options, **checks)
    return claims
