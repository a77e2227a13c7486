"""Settings and their sources: bad values are refused, and secrets are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.process.runtime import run
from service.settings import Settings, SettingsError, load_settings, unknown_names
from service.store.engine import make_engine, pool_sizes
from service.stream.connection import connection_options
from tests.support.certificates import Authority
from tests.support.process import assert_refused, levelsync


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_environment_precedes_secrets_which_precede_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret's trailing newline is removed."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "LEVELSYNC_JWT_SECRET").write_text("from-a-secret\n", encoding="utf-8")
    (secrets / "LEVELSYNC_KAFKA_GROUP_ID").write_text("from-a-secret", encoding="utf-8")
    dotenv = "LEVELSYNC_JWT_SECRET=from-a-file\nLEVELSYNC_JWT_ISSUER=from-a-file\n"
    (tmp_path / ".env").write_text(dotenv, encoding="utf-8")
    monkeypatch.setenv("LEVELSYNC_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("LEVELSYNC_KAFKA_GROUP_ID", "from-the-environment")
    found = load_settings()
    assert found.jwt_secret is not None
    assert found.jwt_secret.get_secret_value() == "from-a-secret"
    assert (found.kafka_group_id, found.jwt_issuer) == ("from-the-environment", "from-a-file")


def test_a_secret_with_an_unknown_name_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a variable would be. What Kubernetes adds to the folder is ignored."""
    (tmp_path / "LEVELSYNC_JWT_SECRETT").touch()
    (tmp_path / "..data").mkdir()
    monkeypatch.setenv("LEVELSYNC_SECRETS_DIR", str(tmp_path))
    assert unknown_names() == {"LEVELSYNC_JWT_SECRETT": "LEVELSYNC_JWT_SECRET"}


def test_a_folder_of_secrets_that_is_not_there_is_exit_2(tmp_path: Path) -> None:
    run = levelsync("doctor", env={"LEVELSYNC_SECRETS_DIR": str(tmp_path / "gone")})
    assert_refused(run, 2, "LEVELSYNC_SECRETS_DIR")


SERVICE_LINKS = {
    "LEVELSYNC_SERVICE_HOST": "10.0.0.1",
    "LEVELSYNC_SERVICE_PORT_HTTP": "8000",
    "LEVELSYNC_PORT": "tcp://10.0.0.1:8000",
    "LEVELSYNC_PORT_8000_TCP_ADDR": "10.0.0.1",
    "LEVELSYNC_HTTP_PORT": "tcp://10.0.0.1:8000",
    "LEVELSYNC_HTTP_SERVICE_HOST": "10.0.0.1",
    "LEVELSYNC_HTTP_SERVICE_PORT": "8000",
    "LEVELSYNC_HTTP_SERVICE_PORT_METRICS": "8001",
    "LEVELSYNC_HTTP_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "LEVELSYNC_HTTP_PORT_8000_TCP_PROTO": "tcp",
    "LEVELSYNC_POSTGRES_PORT": "udp://10.0.0.2:5432",
}


def test_service_links_of_kubernetes_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where one has a setting's name: a service called levelsync-http sets LEVELSYNC_HTTP_PORT."""
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    assert load_settings().http_port == 8000
    assert unknown_names() == {}


def test_a_mistyped_name_is_still_found() -> None:
    assert unknown_names({"LEVELSYNC_HTTP_PROT": "8000"}) == {"LEVELSYNC_HTTP_PROT": "LEVELSYNC_HTTP_PORT"}


def test_no_error_text_contains_a_bad_value() -> None:
    """pydantic's errors show the input, which may be a password, by default."""
    with pytest.raises(ValueError, match="database_url") as told:
        Settings(_env_file=None, database_url="mysql://u:s3cret@localhost/d")
    assert "s3cret" not in str(told.value)


def test_the_connections_of_a_process_are_those_of_the_setting() -> None:
    assert pool_sizes(Settings(_env_file=None), with_api=True) == (7, 3)
    assert pool_sizes(Settings(_env_file=None), with_api=False) == (10, 0)
    assert pool_sizes(Settings(_env_file=None, database_pool_size=40), with_api=True) == (28, 12)


@pytest.mark.parametrize(("password", "works"), [("of the key", True), ("another", False), (None, False)])
def test_a_client_key_for_kafka_may_have_a_password(tmp_path: Path, password: str | None, *, works: bool) -> None:
    """A wrong password is a bad setting, and nobody is asked at a terminal."""
    pair = Authority(tmp_path).sign("me", password="of the key")  # noqa: S106 - of the tests only
    settings = Settings(
        _env_file=None,
        kafka_security_protocol="SSL",
        kafka_ssl_certfile=pair.certificate,
        kafka_ssl_keyfile=pair.key,
        kafka_ssl_key_password=password,
    )
    if works:
        assert connection_options(settings)["ssl_context"] is not None
        return
    with pytest.raises(SettingsError, match=r"LEVELSYNC_KAFKA_SSL_.*KEY_PASSWORD"):
        connection_options(settings)


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "GSSAPI"])
def test_a_login_that_is_not_supported_is_a_bad_setting(mechanism: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVELSYNC_KAFKA_SASL_MECHANISM", mechanism)
    with pytest.raises(SettingsError, match=r"LEVELSYNC_KAFKA_SASL_MECHANISM: .*SCRAM-SHA-512"):
        load_settings()


PASSWORD = "s3cret"  # noqa: S105 - what must not be shown


@pytest.mark.parametrize("rest", ["host:port/db", f"host:{PASSWORD}@host/db"])
def test_a_bad_port_is_named_without_the_password(rest: str) -> None:
    """`int()` quotes its input, which may be the end of a password."""
    url = f"postgresql://user:{PASSWORD}@{rest}"
    settings = Settings(_env_file=None, database_url=url, http_port=0)
    with pytest.raises(SettingsError, match="LEVELSYNC_DATABASE_URL") as told:
        make_engine(settings)
    assert PASSWORD not in str(told.value)
    assert told.value.__cause__ is None
    assert run(settings) == 2
