"""The keys that tokens are checked with: a secret, or an identity provider's."""

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
"""Seconds that a JWKS URL may take, from the connection to the last byte."""
MOST_BYTES = 256 * 1024
"""Bytes that it may send; a set of ten RSA keys with certificates has about 30 KB."""
FRESH_FOR = 300.0
"""Seconds after which a key that is in use is fetched again: one that was taken back ends no later."""
STALE_FOR = 3600.0
"""Seconds for which known keys go on while the JWKS URL is away."""
FETCH_EVERY = 10.0
"""Seconds between two fetches, so that tokens with made-up key ids cannot make this service hammer the URL."""


class PublishedKeys:
    """Public keys behind a URL, by the key id of the token; a new id is looked up there, at most every ten seconds."""

    def __init__(self, url: str) -> None:
        self._url = url
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
            async with asyncio.timeout(FETCH_TIMEOUT):
                published = _keys_in(await _read(self._url))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
            self._away = True
            log.warning("the keys of tokens cannot be fetched", error=f"{type(error).__name__}: {error}")
            return
        self._away = False
        self._fetched = now
        self._keys = published


async def _read(url: str) -> bytes:
    """Fetch the body. It runs in the event loop, so that a server that drips bytes holds no thread, and no stop.

    Raises:
        ValueError: it is too large, or compressed, which could hide how large it is, or a redirect left TLS, so that
            anybody on the way could publish keys.
    """
    body = bytearray()
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    # The machine's own certificates, as every other program here: an internal CA is trusted by being installed.
    async with (
        httpx.AsyncClient(verify=ssl.create_default_context(), follow_redirects=True, max_redirects=3) as client,
        client.stream("GET", url, headers=headers, timeout=FETCH_TIMEOUT) as answer,
    ):
        answer.raise_for_status()
        schemes = [one.url.scheme for one in (*answer.history, answer)]
        if schemes[0] == "https" and set(schemes) != {"https"}:
            raise ValueError("the keys were redirected to a connection without TLS")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("the keys are compressed")
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MOST_BYTES:
                raise ValueError(f"the keys have more than {MOST_BYTES} bytes")
    return bytes(body)


def _keys_in(body: bytes) -> dict[str, jwt.PyJWK]:
    """The keys that can sign tokens, by their ids; the others are left out, whatever they hold.

    Raises:
        ValueError: it is not a set of keys, or there is none in it: known keys go on.
    """
    document = json.loads(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is not a set of keys")  # noqa: TRY004 - somebody else's JSON, not an argument
    usable = [key for key in map(_usable, listed) if key is not None]
    if not usable:
        raise ValueError("the set has no key that can be used")
    return {str(key.key_id): key for key in usable}


def _usable(published: Any) -> jwt.PyJWK | None:
    if not isinstance(published, dict) or not isinstance(published.get("kid"), str) or not published["kid"]:
        return None
    # Tuples, because what is looked up may be a list, which has no hash.
    if published.get("use") not in ("sig", None) or published.get("alg") not in (*ASYMMETRIC, None):
        return None
    try:
        key = jwt.PyJWK(published)
    except Exception as error:  # noqa: BLE001 - somebody else's bytes: libraries fail on them in many ways
        log.warning("a published key cannot be read", kid=published["kid"][:100], error=type(error).__name__)
        return None
    return key if key.algorithm_name in ASYMMETRIC else None


def _key_id(token: str) -> str:
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise NotSignedIn("The token cannot be read.") from None
    if not isinstance(kid, str) or not kid:
        raise NotSignedIn("The token does not say which key it is signed with.")
    return kid


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
