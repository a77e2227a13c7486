"""Each kind of bad token is refused, and the reason does not repeat the token."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.identity import NotSignedIn
from service.admin.tokens import Authenticator
from service.settings import Settings, SettingsError
from service.store.engine import make_engine
from tests.support.tables import execute
from tests.support.tokens import AUDIENCE, ISSUER, SECRET, by_hand, claims, signed, token, unsigned

NOW = int(time.time())
REFUSED = {
    "nothing": "",
    "no token": "abc",
    "three parts of nothing": "a.b.c",
    "not ASCII": "é.ü.ß",
    "too long": signed(filler="x" * 9000),
    "a body that is no object": by_hand(["admin"], SECRET),
    "a deeply nested body": by_hand(claims() | {"x": [[[[[[]]]]]] * 500}, SECRET) + "x",
    "another key": signed(key=SECRET + "x"),
    "algorithm none": unsigned(),
    "algorithm None": by_hand(claims(), SECRET, {"alg": "None", "typ": "JWT"}),
    "no algorithm": by_hand(claims(), SECRET, {"typ": "JWT"}),
    "an algorithm of public keys": by_hand(claims(), SECRET, {"alg": "RS256", "typ": "JWT"}),
    "a critical header that nobody knows": by_hand(claims(), SECRET, {"alg": "HS256", "crit": ["x"], "x": 1}),
    "without signature": signed().rpartition(".")[0] + ".",
    "with another signature": signed().rpartition(".")[0] + "." + signed(sub="2").rpartition(".")[2],
    "expired": signed(exp=NOW - 60),
    "without an end": signed(exp=None),
    "an end that is text": by_hand(claims() | {"exp": "tomorrow"}, SECRET),
    "an end beyond all calendars": by_hand(claims() | {"exp": 10**18}, SECRET),
    "an end that is a list": by_hand(claims() | {"exp": []}, SECRET),
    "an end that is infinite": by_hand(claims() | {"exp": float("inf")}, SECRET),
    "a beginning that is an object": by_hand(claims() | {"nbf": {}}, SECRET),
    "issued at an infinite time": by_hand(claims() | {"iat": float("inf")}, SECRET),
    "its payload apart": by_hand(claims(), SECRET, {"alg": "HS256", "b64": False, "crit": ["b64"]}),
    "a key id that is a list": by_hand(claims(), SECRET, {"alg": "HS256", "kid": ["x"]}),
    "an algorithm that is a list": by_hand(claims(), SECRET, {"alg": ["HS256"]}),
    "an algorithm that is an object": by_hand(claims(), SECRET, {"alg": {}}),
    "a header that is a list": by_hand(claims(), SECRET, ["HS256"]),  # type: ignore[arg-type]  # as a forger does
    "not yet valid": signed(nbf=NOW + 3600),
    "issued in the future": signed(iat=NOW + 3600),
    "a refresh token": signed(type="refresh"),
    "a type that is none": signed(type=0),
    "without a subject": signed(sub=None),
    "an empty subject": signed(sub=" "),
    "a subject that is a number": signed(sub=1),
    "a subject with a line's end": signed(sub="1\n"),
    "a subject with NUL": signed(sub="1\0"),
    "roles as a number": signed(roles=1),
    "roles as an object": signed(roles={"admin": True}),
    "roles as a list with a number": signed(roles=["admin", 1]),
    "roles as true": signed(roles=True),
    "roles as null": by_hand(claims() | {"roles": None}, SECRET),
}


@pytest.fixture
def authenticator(settings: Settings, engine: AsyncEngine) -> Authenticator:
    return Authenticator(settings, engine)


def with_settings(**changes: Any) -> Authenticator:
    """Return an authenticator without a database, which most tokens do not need."""
    settings = Settings(_env_file=None, **{"jwt_secret": SECRET} | changes)
    return Authenticator(settings, make_engine(settings))


@pytest.fixture
def without_database() -> Authenticator:
    return with_settings()


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_bad_token_is_refused(without_database: Authenticator, kind: str) -> None:
    with pytest.raises(NotSignedIn) as refusal:
        await without_database.identify(REFUSED[kind])
    assert str(refusal.value).startswith("The token")
    assert "eyJ" not in str(refusal.value)


async def test_a_good_token_gives_subject_role_and_end(without_database: Authenticator) -> None:
    """`type` is optional, and the longer HMACs are accepted."""
    good = claims()
    who = await without_database.identify(signed(exp=good["exp"]))
    assert (who.subject, who.role, who.synced_by) == ("1", "admin", 1)
    assert int(who.expires_at.timestamp()) == good["exp"]
    for one in (signed(type=None), signed("HS384"), signed("HS512")):
        assert (await without_database.identify(one)).role == "admin"


@pytest.mark.parametrize(
    ("held", "role"),
    [
        ("instructor", "instructor"),
        (["student", "admin", "x"], "admin"),
        ([], "none"),
        ("ADMIN", "admin"),
        (["Student", "INSTRUCTOR"], "instructor"),
        (["owner", "SPORT_DIRECTOR", "admins"], "none"),
    ],
)
async def test_the_strongest_known_role_counts(without_database: Authenticator, held: Any, role: str) -> None:
    """The claim is a string or a list, in any case."""
    assert (await without_database.identify(signed(roles=held))).role == role


async def test_the_claim_of_roles_is_a_dotted_path() -> None:
    keycloak = with_settings(jwt_roles_claim="realm_access.roles")
    assert (await keycloak.identify(signed(roles=None, realm_access={"roles": ["instructor"]}))).role == "instructor"
    with pytest.raises(NotSignedIn):
        await keycloak.identify(signed(realm_access="admin"))


async def test_a_token_without_roles_has_the_role_of_its_user(authenticator: Authenticator) -> None:
    """The subject is an id or an email address, and the history names that user."""
    users = [("1", "admin", 1), ("instructor2@example.org", "instructor", 2), ("3", "student", 3)]
    for subject, role, user_id in users:
        who = await authenticator.identify(signed(roles=None, sub=subject))
        assert (who.subject, who.role, who.user_id, who.synced_by) == (subject, role, user_id, user_id)


@pytest.mark.parametrize(
    ("setting", "claim"),
    [
        ("https://example.com/roles", {"https://example.com/roles": ["admin"]}),
        ("realm.roles", {"realm.roles": ["admin"]}),
        ("realm.roles", {"realm.roles": ["admin"], "realm": "of another kind"}),
        ("/resource_access/my.client/roles", {"resource_access": {"my.client": {"roles": ["admin"]}}}),
        ("/a~1b/~0", {"a/b": {"~": "admin"}}),
    ],
)
async def test_a_claim_of_roles_may_be_named_in_three_ways(
    settings: Settings, engine: AsyncEngine, setting: str, claim: dict[str, Any]
) -> None:
    """The literal name comes first, then a dotted path. A value that begins with a slash is a JSON Pointer."""
    changed = settings.model_copy(update={"jwt_roles_claim": setting})
    named = Authenticator(changed, engine)
    assert (await named.identify(by_hand(claims(roles=None, sub="3") | claim, SECRET))).role == "admin"
    assert (await named.identify(token(changed, "instructor", "3"))).role == "instructor"
    assert (await named.identify(signed(roles=["admin"], sub="3"))).role == "student"


async def test_without_roles_from_users_a_subject_is_not_a_user() -> None:
    apart = with_settings(jwt_roles_from_users=False)
    who = await apart.identify(signed(roles=None))
    assert (who.role, who.user_id, who.synced_by) == ("none", None, "subject 1")
    assert (await apart.identify(signed())).synced_by == "subject 1"


@pytest.mark.parametrize(
    ("stored", "role"),
    [
        *((role, role.lower()) for role in ("ADMIN", "INSTRUCTOR", "STUDENT", "admin")),
        *((role, "none") for role in ("SPORT_DIRECTOR", "sport_director")),
    ],
)
async def test_a_role_of_the_database_counts_in_any_case(
    authenticator: Authenticator, engine: AsyncEngine, stored: str, role: str
) -> None:
    """SQLAlchemy stores the names of an enum, in upper case."""
    await execute(
        engine,
        f"CREATE TYPE stored_role AS ENUM ('{stored}')",
        "ALTER TABLE users ALTER role DROP DEFAULT",
        f"ALTER TABLE users ALTER role TYPE stored_role USING '{stored}'::stored_role",
    )
    assert (await authenticator.identify(signed(roles=None, type=None, sub="admin1@example.org"))).role == role


async def test_a_token_of_a_deleted_user_is_refused(authenticator: Authenticator, engine: AsyncEngine) -> None:
    """A token of an unknown or inactive user is refused too."""
    await execute(
        engine,
        "DELETE FROM users WHERE id = 2",
        "ALTER TABLE users ADD COLUMN is_active boolean NOT NULL DEFAULT true",
        "UPDATE users SET is_active = false WHERE id = 1",
    )
    for subject in ("2", "instructor2@example.org", "nobody@example.org", "99999999999999", "0", "1"):
        with pytest.raises(NotSignedIn):
            await authenticator.identify(signed(roles=None, sub=subject))
    assert (await authenticator.identify(signed(roles=None, sub="3"))).role == "student"


async def test_issuer_and_audience_are_checked_when_they_are_set(without_database: Authenticator) -> None:
    strict = with_settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    ours = {"iss": ISSUER, "aud": AUDIENCE}
    for wrong in (ours | {"iss": None}, ours | {"aud": None}, ours | {"iss": "x"}, ours | {"aud": "x"}):
        with pytest.raises(NotSignedIn):
            await strict.identify(signed(**wrong))
        assert (await without_database.identify(signed(**wrong))).role == "admin"
    for right in (AUDIENCE, ["other", AUDIENCE]):
        assert (await strict.identify(signed(iss=ISSUER, aud=right))).role == "admin"


def test_without_a_key_nothing_starts() -> None:
    """Two keys, or a URL without issuer and audience, are refused too."""
    url = "https://issuer.example.org/jwks.json"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"jwt_secret": None}, "JWT_SECRET or LEVELSYNC_JWT_JWKS_URL"),
        ({"jwt_jwks_url": url}, "cannot be set together"),
        ({"jwt_secret": None, "jwt_jwks_url": url, "jwt_issuer": ISSUER}, "JWT_AUDIENCE"),
        ({"jwt_roles_claim": "/a~2"}, "JWT_ROLES_CLAIM"),
        ({"jwt_roles_claim": ""}, "JWT_ROLES_CLAIM"),
        ({"jwt_secret": None, "jwt_jwks_url": "file:///etc", "jwt_issuer": "i", "jwt_audience": "a"}, "http"),
    ]
    for changes, said in wrong:
        with pytest.raises(SettingsError, match=said):
            with_settings(**changes)
