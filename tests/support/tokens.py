"""Tokens, good and forged, and a server that publishes keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from service.admin.identity import Identity, Role, user_id_of
from service.cli.token import sign
from service.settings import Settings

SECRET = "a-secret-of-the-tests-which-is-long-enough-for-every-HMAC-there-is"  # noqa: S105 - of the tests only
_MOST_DRIPPED = 50_000_000
ISSUER, AUDIENCE = "https://issuer.example.org", "levelsync"


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of an admin's good token. A change to None removes a claim."""
    now = int(time.time())
    good = {"sub": "1", "type": "access", "iat": now, "nbf": now, "exp": now + 600, "roles": ["admin"]}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(algorithm: str = "HS256", key: Any = SECRET, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token. PyJWT itself would refuse to sign some of them."""
    if isinstance(changes.get("sub"), int):
        return by_hand(claims(**changes), key)
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def by_hand(payload: Any, key: str, header: dict[str, Any] | None = None) -> str:
    """Sign anything with HS256, as a forger would."""
    parts = [_base64(json.dumps(part).encode()) for part in (header or {"alg": "HS256", "typ": "JWT"}, payload)]
    signature = hmac.new(key.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, _base64(signature)])


def unsigned(**changes: Any) -> str:
    """Return a token with the algorithm `none`."""
    return jwt.encode(claims(**changes), "", algorithm="none", headers={"kid": "first"})


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@cache
def _rsa_key(_kid: str) -> rsa.RSAPrivateKey:
    """Return the key of this id. Each process generates it once, because that takes a tenth of a second."""
    return rsa.generate_private_key(65537, 2048)


class KeyServer:
    """Publishes public keys. `private` has their private keys."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.extra: list[dict[str, Any]] = []
        self.requests = 0
        self.answers = True
        self.drips: bytes = b""
        """Send this again and again instead of an answer, until the other side goes away."""
        self.dripped = 0
        self.gone = threading.Event()
        """The other side went away while bytes dripped."""
        self.url = ""

    def add_rsa(self, kid: str, **fields: Any) -> None:
        self.private[kid] = _rsa_key(kid)
        self.extra.append(RSAAlgorithm.to_jwk(self.private[kid].public_key(), as_dict=True) | {"kid": kid} | fields)

    def add_ec(self, kid: str) -> None:
        self.private[kid] = ec.generate_private_key(ec.SECP256R1())
        self.extra.append(ECAlgorithm.to_jwk(self.private[kid].public_key(), as_dict=True) | {"kid": kid})

    def pem(self, kid: str) -> str:
        """Return the public key as text, which a forger would use as an HMAC secret."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public: bytes = self.private[kid].public_key().public_bytes(serialization.Encoding.PEM, form)
        return public.decode()

    def token(self, kid: str, algorithm: str = "RS256", **changes: Any) -> str:
        """Return a good token of this issuer."""
        for_us = {"iss": ISSUER, "aud": AUDIENCE} | changes
        return jwt.encode(claims(**for_us), self.private[kid], algorithm=algorithm, headers={"kid": kid})


@contextmanager
def serving() -> Iterator[KeyServer]:
    """Run a server of keys on loopback."""
    keys = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.requests += 1
            if keys.drips:
                self._drip()
                return
            body = json.dumps({"keys": keys.extra}).encode()
            self.send_response(200 if keys.answers else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _drip(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while keys.dripped < _MOST_DRIPPED:
                    self.wfile.write(keys.drips)
                    keys.dripped += len(keys.drips)
                    if len(keys.drips) == 1:
                        time.sleep(0.05)
            except OSError:
                keys.gone.set()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    keys.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
    try:
        yield keys
    finally:
        server.shutdown()
        server.server_close()


def somebody(role: Role, subject: str = "1") -> Identity:
    """Return an identity with a role, for an hour."""
    return Identity(subject, role, datetime.now(UTC) + timedelta(hours=1), user_id_of(subject))


def token(settings: Settings, role: str = "admin", subject: str = "1", ttl: timedelta = timedelta(hours=1)) -> str:
    """Return a token of `levelsync token`."""
    return sign(settings, role, subject, ttl)


APPLICATION_SECRET = "the-SECRET_KEY-of-the-application-which-signs-its-own-tokens"  # noqa: S105 - of the tests only
PREFIX = "/api/v1/licenses/admin/sync"


def application_token(email: str) -> str:
    """Return a token as the application signs it at a login: the address as subject, and no role."""
    claims = {"sub": email, "exp": datetime.now(UTC) + timedelta(minutes=30), "type": "access"}
    return jwt.encode(claims, APPLICATION_SECRET, algorithm="HS256")


def client(url: str, email: str) -> httpx.AsyncClient:
    """Return a client that is signed in at the application."""
    headers = {"Authorization": f"Bearer {application_token(email)}"}
    return httpx.AsyncClient(base_url=f"{url}{PREFIX}", headers=headers, timeout=40)
