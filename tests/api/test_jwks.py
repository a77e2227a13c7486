"""Keys behind a URL: rotation, outages, forged tokens, unusable keys, and the forms that providers document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin import keys
from service.admin.identity import Busy, NotSignedIn
from service.admin.tokens import Authenticator
from service.settings import Settings
from service.store.engine import make_engine
from tests.support.tokens import AUDIENCE, ISSUER, KeyServer, by_hand, claims, serving, unsigned
from tests.support.waiting import eventually

STRANGE: dict[str, list[Any]] = {"alg": ["none", ["RS256"], {}, 7], "kty": [[], {}], "kid": [["strange"], {}]}
STRANGE |= {"use": [["sig"]], "n": [["x"]], "e": [None]}


@pytest.fixture
def server() -> Iterator[KeyServer]:
    """A key server with one key, `first`."""
    with serving() as server:
        server.add_rsa("first")
        yield server


def trusting(server: KeyServer, engine: AsyncEngine | None = None, **changes: Any) -> Authenticator:
    """Return an authenticator that trusts the server's keys. Most tokens need no database."""
    named = {"jwt_jwks_url": server.url, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE} | changes
    settings = Settings(_env_file=None, **named)
    return Authenticator(settings, engine or make_engine(settings))


@pytest.fixture
def authenticator(server: KeyServer) -> Authenticator:
    return trusting(server)


@pytest.fixture
def fetch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "FETCH_EVERY", 0.0)


@pytest.mark.usefixtures("fetch_at_once")
async def test_a_new_key_is_found_without_a_restart(authenticator: Authenticator, server: KeyServer) -> None:
    """A known key costs no request."""
    for _ in range(3):
        assert (await authenticator.identify(server.token("first"))).role == "admin"
    assert server.requests == 1
    server.add_ec("second")
    assert (await authenticator.identify(server.token("second", "ES256"))).role == "admin"
    assert server.requests == 2


async def test_a_subject_of_the_provider_is_not_a_user(
    authenticator: Authenticator, server: KeyServer, engine: AsyncEngine
) -> None:
    """Its subject "1" without roles has no role, unless the setting allows roles from `users`."""
    outsider = server.token("first", roles=None, sub="1")
    who = await authenticator.identify(outsider)
    assert (who.role, who.user_id) == ("none", None)
    assert (await trusting(server, engine, jwt_roles_from_users=True).identify(outsider)).role == "admin"


async def test_unknown_key_ids_cause_one_request(authenticator: Authenticator, server: KeyServer) -> None:
    mine = server.private["first"]
    for number in range(20):
        token = jwt.encode(claims(), mine, algorithm="RS256", headers={"kid": f"made-up-{number}"})
        with pytest.raises(NotSignedIn):
            await authenticator.identify(token)
    assert server.requests == 1


@pytest.mark.usefixtures("fetch_at_once")
async def test_a_withdrawn_key_is_refused(
    authenticator: Authenticator, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = server.token("first")
    await authenticator.identify(token)
    server.extra.clear()
    server.add_rsa("second")
    monkeypatch.setattr(keys, "FRESH_FOR", 0.0)
    with pytest.raises(NotSignedIn):
        await authenticator.identify(token)


@pytest.mark.usefixtures("fetch_at_once")
async def test_an_unreachable_key_server_refuses_no_known_key(
    authenticator: Authenticator, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown keys cannot be checked now, but known keys still work."""
    server.answers = False
    with pytest.raises(Busy):
        await authenticator.identify(server.token("first"))
    server.answers = True
    assert (await authenticator.identify(server.token("first"))).role == "admin"
    server.answers = False
    monkeypatch.setattr(keys, "FRESH_FOR", 0.0)
    assert (await authenticator.identify(server.token("first"))).role == "admin"


@pytest.mark.usefixtures("fetch_at_once")
@pytest.mark.parametrize("drips", [b" ", b" " * 65_536])
async def test_an_endless_answer_of_the_key_server_is_given_up(
    authenticator: Authenticator, server: KeyServer, drips: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetch is bounded and leaves nothing behind, and the next one works."""
    monkeypatch.setattr(keys, "FETCH_TIMEOUT", 0.5)
    server.drips = drips
    with pytest.raises(Busy):
        await authenticator.identify(server.token("first"))
    assert await asyncio.to_thread(server.gone.wait, 5)
    assert server.dripped < 10_000_000
    server.drips = b""
    assert (await authenticator.identify(server.token("first"))).role == "admin"


async def test_keys_are_never_read_without_tls(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An https URL may redirect to http, where an attacker could publish keys."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            return httpx.Response(302, headers={"Location": "http://keys.example/jwks.json"})
        return httpx.Response(200, content=published())

    async def published() -> AsyncIterator[bytes]:
        yield json.dumps({"keys": server.extra}).encode()

    client = partial(httpx.AsyncClient, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("service.admin.keys.httpx.AsyncClient", client)
    with pytest.raises(Busy):
        await trusting(server, jwt_jwks_url="https://keys.example/jwks.json").identify(server.token("first"))


async def test_a_stop_ends_a_fetch(
    authenticator: Authenticator, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread fetches the keys, because a thread would delay the stop."""
    monkeypatch.setattr(keys, "FETCH_TIMEOUT", 600.0)
    server.drips = b" "
    asking = asyncio.create_task(authenticator.identify(server.token("first")))
    await eventually(lambda: server.dripped > 0)
    asking.cancel()
    await asyncio.wait({asking}, timeout=2)
    assert asking.cancelled()
    assert await asyncio.to_thread(server.gone.wait, 5)


@pytest.mark.parametrize(
    "strange",
    [
        *({name: value} for name, values in STRANGE.items() for value in values),
        {"kty": "EC", "crv": ["P-256"]},
        {"kty": "OKP", "crv": "Ed25519", "x": 7},
    ],
)
async def test_a_malformed_key_beside_a_good_one_is_skipped(
    authenticator: Authenticator, server: KeyServer, strange: dict[str, Any]
) -> None:
    """The strange key is skipped, and a token that names it is refused."""
    server.add_rsa("strange")
    server.extra[-1] |= strange
    server.extra += [[], "text", 7, None]  # type: ignore[list-item]  # as a broken publisher sends them
    server.extra.reverse()
    assert (await authenticator.identify(server.token("first"))).role == "admin"
    with pytest.raises(NotSignedIn):
        await authenticator.identify(server.token("strange"))


async def test_a_public_key_signs_no_token(authenticator: Authenticator, server: KeyServer) -> None:
    """HMAC with the published key, a changed algorithm and published symmetric keys are refused."""
    for_us = claims(iss=ISSUER, aud=AUDIENCE)
    symmetric = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "HS256"}
    server.extra.append(symmetric)
    server.add_rsa("for-encryption", use="enc")
    forged = [
        by_hand(for_us, server.pem("first"), {"alg": "HS256", "kid": "first"}),
        by_hand(for_us, "secret-secret-secret-secret", {"alg": "HS256", "kid": "shared"}),
        server.token("first", "RS512"),
        server.token("for-encryption"),
        server.token("first", iss="https://other.example.org"),
        server.token("first", aud="other"),
        jwt.encode(for_us, server.private["first"], algorithm="RS256"),
        unsigned(iss=ISSUER, aud=AUDIENCE),
    ]
    for token in forged:
        with pytest.raises(NotSignedIn):
            await authenticator.identify(token)
    assert (await authenticator.identify(server.token("first"))).role == "admin"


@dataclass(frozen=True)
class Form:
    """What a provider documents that it publishes and signs, and the settings that read it."""

    key: dict[str, Any]
    claims: dict[str, Any]
    audience: str
    roles_claim: str
    also: list[dict[str, Any]] = field(default_factory=list)
    """Keys beside it that sign nothing."""


FORMS = {
    "Keycloak": Form(
        {"use": "sig", "alg": "RS256", "x5c": ["MIIC"], "x5t": "a", "x5t#S256": "b"},
        {"iss": "https://sso.example.org/realms/club", "aud": ["levelsync", "account"], "typ": "Bearer"}
        | {"azp": "levelsync", "realm_access": {"roles": ["offline_access", "admin"]}, "scope": "openid email"}
        | {"resource_access": {"account": {"roles": ["manage-account"]}}},
        "levelsync",
        "realm_access.roles",
        [{"kid": "of-encryption", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "n": "AQAB", "e": "AQAB"}],
    ),
    "Auth0": Form(
        {"use": "sig", "alg": "RS256", "x5t": "a", "x5c": ["MIIC"]},
        {"iss": "https://club.eu.auth0.com/", "azp": "client", "permissions": []}
        | {"aud": ["https://levelsync.example.org", "https://club.eu.auth0.com/userinfo"]}
        | {"https://levelsync.example.org/roles": ["admin"]},
        "https://levelsync.example.org",
        "https://levelsync.example.org/roles",
    ),
    "Microsoft Entra ID": Form(
        {"use": "sig", "x5t": "a", "x5c": ["MIIC"], "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {"iss": "https://login.microsoftonline.com/8f1e/v2.0", "aud": "6e74", "ver": "2.0", "oid": "0c8b"}
        | {"tid": "8f1e", "uti": "x", "roles": ["Admin"]},
        "6e74",
        "roles",
    ),
    "Amazon Cognito, ID token": Form(
        {"use": "sig", "alg": "RS256"},
        {"iss": "https://cognito-idp.eu-central-1.amazonaws.com/pool", "aud": "client", "token_use": "id"}
        | {"cognito:groups": ["admin"]},
        "client",
        "cognito:groups",
    ),
    "Okta": Form(
        {"use": "sig", "alg": "RS256"},
        {"iss": "https://club.okta.com/oauth2/default", "aud": "api://default", "ver": 1, "scp": ["openid"]}
        | {"groups": ["Everyone", "admin"]},
        "api://default",
        "groups",
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_tokens_of_its_form_give_their_role(form: Form, server: KeyServer) -> None:
    """Another issuer or audience is refused. Without the claim there is no role."""
    server.extra[:] = form.also
    server.add_rsa("first", **form.key)
    issuer, claim = form.claims["iss"], form.roles_claim
    authenticator = trusting(server, jwt_issuer=issuer, jwt_audience=form.audience, jwt_roles_claim=claim)
    good = {"sub": "auth0|66b1", "type": None, "roles": None} | form.claims
    assert (await authenticator.identify(server.token("first", **good))).role == "admin"
    for changes in ({"iss": f"{issuer}x"}, {"aud": "another-client"}, {"aud": None}):
        with pytest.raises(NotSignedIn):
            await authenticator.identify(server.token("first", **good | changes))
    without = good | {claim if claim in good else claim.partition(".")[0]: None}
    assert (await authenticator.identify(server.token("first", **without))).role == "none"
