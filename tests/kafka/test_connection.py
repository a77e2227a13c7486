"""Settings become the options of every Kafka client."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from faststream.kafka.security import parse_security

from service.settings import Settings, SettingsError
from service.stream.connection import connection_options, faststream_security

USER = {"kafka_sasl_username": "me", "kafka_sasl_password": "secret"}


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_user_and_password_reach_every_client_alike(protocol: str, mechanism: str) -> None:
    """aiokafka's clients and FastStream's broker get the same options, each with its own SSL context."""
    given = settings(kafka_security_protocol=protocol, kafka_sasl_mechanism=mechanism, **USER)
    ours = connection_options(given)
    theirs = parse_security(faststream_security(given))
    assert (ours["sasl_plain_username"], ours["sasl_plain_password"]) == ("me", "secret")
    assert (ours.pop("ssl_context") is None) == (theirs.pop("ssl_context") is None) == (protocol == "SASL_PLAINTEXT")
    assert ours == theirs | {"bootstrap_servers": given.kafka_bootstrap_servers}


def test_plaintext_needs_nothing() -> None:
    plain = {"bootstrap_servers": "localhost:9092", "security_protocol": "PLAINTEXT", "ssl_context": None}
    assert connection_options(settings()) == plain


def test_tls_verifies_the_broker() -> None:
    context = connection_options(settings(kafka_security_protocol="SSL"))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "LEVELSYNC_KAFKA_SASL_USERNAME"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_cafile": Path("/no/such/file")}, "LEVELSYNC_KAFKA_SSL_CAFILE"),
    ],
)
def test_what_is_missing_is_a_bad_setting_by_its_name(values: dict[str, Any], named: str) -> None:
    """It is exit 2, not a server that cannot be reached."""
    with pytest.raises(SettingsError, match=named):
        connection_options(settings(**values))
