"""Keys and tokens in the forms that identity providers document. No real provider is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.identity import NotSignedIn
from service.admin.tokens import Authenticator
from service.settings import Settings
from tests.support.tokens import serving


@dataclass(frozen=True)
class Form:
    """What a provider publishes and signs, and the settings that read it."""

    key: dict[str, Any]
    claims: dict[str, Any]
    audience: str
    roles_claim: str
    also: list[dict[str, Any]] = field(default_factory=list)
    """Keys beside it that sign nothing."""


FORMS = {
    "Keycloak": Form(
        {"use": "sig", "alg": "RS256", "x5c": ["MIIC"], "x5t": "a", "x5t#S256": "b"},
        {
            "iss": "https://sso.example.org/realms/club",
            "aud": ["levelsync", "account"],
            "typ": "Bearer",
            "azp": "levelsync",
            "realm_access": {"roles": ["offline_access", "admin"]},
            "resource_access": {"account": {"roles": ["manage-account"]}},
            "scope": "openid email",
        },
        "levelsync",
        "realm_access.roles",
        [{"kid": "of-encryption", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "n": "AQAB", "e": "AQAB"}],
    ),
    "Auth0": Form(
        {"use": "sig", "alg": "RS256", "x5t": "a", "x5c": ["MIIC"]},
        {
            "iss": "https://club.eu.auth0.com/",
            "aud": ["https://levelsync.example.org", "https://club.eu.auth0.com/userinfo"],
            "azp": "client",
            "https://levelsync.example.org/roles": ["admin"],
            "permissions": [],
        },
        "https://levelsync.example.org",
        "https://levelsync.example.org/roles",
    ),
    "Microsoft Entra ID": Form(
        {"use": "sig", "x5t": "a", "x5c": ["MIIC"], "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {
            "iss": "https://login.microsoftonline.com/8f1e/v2.0",
            "aud": "6e74",
            "ver": "2.0",
            "oid": "0c8b",
            "tid": "8f1e",
        }
        | {"uti": "x", "roles": ["Admin"]},
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


async def _role(form: Form, settings: Settings, engine: AsyncEngine, **changes: Any) -> str:
    with serving() as server:
        server.extra += form.also
        server.add_rsa("first", **form.key)
        named = {"jwt_secret": None, "jwt_jwks_url": server.url, "jwt_issuer": form.claims["iss"]}
        named |= {"jwt_audience": form.audience, "jwt_roles_claim": form.roles_claim}
        authenticator = Authenticator(settings.model_copy(update=named), engine)
        subject = {"sub": "auth0|66b1", "type": None, "roles": None}
        return (await authenticator.identify(server.token("first", **(subject | form.claims | changes)))).role


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_tokens_of_its_form_give_their_role(form: Form, settings: Settings, engine: AsyncEngine) -> None:
    """Another issuer or audience is refused. Without the claim there is no role."""
    assert await _role(form, settings, engine) == "admin"
    for changes in ({"iss": f"{form.claims['iss']}x"}, {"aud": "another-client"}, {"aud": None}):
        with pytest.raises(NotSignedIn):
            await _role(form, settings, engine, **changes)
    claim = form.roles_claim
    without = claim if claim in form.claims else claim.partition(".")[0]
    assert await _role(form, settings, engine, **{without: None}) == "none"
