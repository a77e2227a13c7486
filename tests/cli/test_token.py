"""`levelsync token`."""

import jwt

from tests.support.process import levelsync

SECRET = "a-secret-of-at-least-thirty-two-bytes"  # noqa: S105 - of this test only


def test_a_token_carries_role_subject_and_an_end() -> None:
    """The token verifies with the secret, and its claims are what the options say."""
    run = levelsync(
        "token", "--role", "instructor", "--subject", "7", "--ttl", "90s", env={"LEVELSYNC_JWT_SECRET": SECRET}
    )
    claims = jwt.decode(run.stdout.strip(), SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 90
    assert claims["nbf"] == claims["iat"]
    assert (claims["sub"], claims["roles"], claims["type"]) == ("7", ["instructor"], "access")
    assert not {"iss", "aud"} & claims.keys()


def test_a_token_fits_the_configured_issuer_audience_and_claim() -> None:
    """What this installation checks, its token has."""
    settings = {
        "JWT_SECRET": SECRET,
        "JWT_ISSUER": "https://me",
        "JWT_AUDIENCE": "them",
        "JWT_ROLES_CLAIM": "realm.roles",
    }
    run = levelsync("token", "--role", "admin", env={f"LEVELSYNC_{name}": value for name, value in settings.items()})
    claims = jwt.decode(run.stdout.strip(), SECRET, algorithms=["HS256"], issuer="https://me", audience="them")
    assert claims["realm"] == {"roles": ["admin"]}


def test_without_a_secret_the_variable_is_named() -> None:
    """A token needs a secret: wrong use, and which variable."""
    run = levelsync("token", "--role", "admin")
    assert (run.returncode, run.stdout) == (2, "")
    assert "LEVELSYNC_JWT_SECRET" in run.stderr
