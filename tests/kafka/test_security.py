"""TLS and logins of Kafka: each form works, and the diagnosis of each fault says what to do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from service.settings import Settings
from service.stream.connection import describe_cluster
from service.stream.diagnosis import diagnose
from service.stream.topics import ensure_topics
from tests.support import apache_kafka
from tests.support.process import environment, levelsync
from tests.support.secured_kafka import PASSWORD, USER, Secured, secured_kafka

pytestmark = [
    pytest.mark.real_broker,
    # asyncio leaves the transport of a handshake that failed to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
LOGIN = {"kafka_sasl_username": USER, "kafka_sasl_password": PASSWORD}
SCRAM_256, SCRAM_512 = ({"kafka_sasl_mechanism": f"SCRAM-SHA-{bits}"} for bits in (256, 512))


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    if reason := apache_kafka.unavailable():
        pytest.skip(f"needs Apache Kafka from its Maven jars: {reason}")
    with secured_kafka() as started:
        asyncio.run(ensure_topics(started.settings("PLAINTEXT", "PLAINTEXT")))
        yield started


@pytest.fixture(autouse=True)
def _nothing_left_for_other_tests() -> Iterator[None]:
    yield
    gc.collect()


RIGHT: list[tuple[str, str, dict[str, Any]]] = [
    ("TLS", "SSL", {}),
    ("MTLS", "SSL", {"kafka_ssl_certfile": "mine", "kafka_ssl_keyfile": "mine"}),
    ("LOGIN", "SASL_SSL", {**LOGIN, "kafka_sasl_mechanism": "PLAIN"}),
    ("LOGIN", "SASL_SSL", LOGIN | SCRAM_256),
    ("LOGIN", "SASL_SSL", LOGIN | SCRAM_512),
    ("BARE", "SASL_PLAINTEXT", LOGIN),
]


@pytest.mark.parametrize(("listener", "protocol", "more"), RIGHT)
async def test_a_form_works(secured: Secured, listener: str, protocol: str, more: dict[str, Any]) -> None:
    settings = secured.settings(listener, protocol, **_with_files(secured, more))
    assert (await describe_cluster(settings)).brokers == 1
    assert await diagnose(settings) == ""


REFUSED = ("refuses the login of levelsync", "KAFKA_SASL_PASSWORD")
OTHER_PASSWORD, NOBODY = LOGIN | {"kafka_sasl_password": "another"}, LOGIN | {"kafka_sasl_username": "nobody"}
FOREIGN = {"kafka_ssl_certfile": "foreign", "kafka_ssl_keyfile": "foreign"}
WRONG: list[tuple[str, str, str, dict[str, Any], tuple[str, ...]]] = [
    ("wrong authority", "TLS", "SSL", {"kafka_ssl_cafile": "foreign"}, ("not signed by", "KAFKA_SSL_CAFILE")),
    ("no authority", "TLS", "SSL", {"kafka_ssl_cafile": None}, ("does not trust", "KAFKA_SSL_CAFILE")),
    ("expired", "EXPIRED", "SSL", {}, ("certificate has expired",)),
    ("name", "ELSEWHERE", "SSL", {}, ("127.0.0.1", "KAFKA_BOOTSTRAP_SERVERS")),
    ("plain to TLS", "TLS", "PLAINTEXT", {}, ("uses TLS", "KAFKA_SECURITY_PROTOCOL=SSL")),
    ("TLS to plain", "PLAINTEXT", "SSL", {}, ("does not use TLS", "KAFKA_SECURITY_PROTOCOL=PLAINTEXT")),
    ("SSL to SASL_SSL", "LOGIN", "SSL", {}, ("requires a login with", "PLAIN", "KAFKA_SECURITY_PROTOCOL=SASL_SSL")),
    ("plain to SASL", "BARE", "PLAINTEXT", {}, ("login with PLAIN", "KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT")),
    ("SASL_SSL to SSL", "TLS", "SASL_SSL", LOGIN, ("accepts no login", "KAFKA_SECURITY_PROTOCOL=SSL")),
    ("SASL to TLS", "LOGIN", "SASL_PLAINTEXT", LOGIN, ("uses TLS", "KAFKA_SECURITY_PROTOCOL=SASL_SSL")),
    ("SASL_SSL to SASL", "BARE", "SASL_SSL", LOGIN, ("does not use TLS", "KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT")),
    ("no client certificate", "MTLS", "SSL", {}, ("KAFKA_SSL_CERTFILE", "client certificate")),
    ("foreign client certificate", "MTLS", "SSL", FOREIGN, ("refuses the client certificate", "KAFKA_SSL_CERTFILE")),
    ("wrong password", "LOGIN", "SASL_SSL", OTHER_PASSWORD, REFUSED),
    ("wrong password by SCRAM", "LOGIN", "SASL_SSL", OTHER_PASSWORD | SCRAM_512, REFUSED),
    ("unknown user", "LOGIN", "SASL_SSL", NOBODY | SCRAM_256, ("refuses the login of nobody", "KAFKA_SASL_USERNAME")),
    ("mechanism", "BARE", "SASL_PLAINTEXT", LOGIN | SCRAM_256, ("KAFKA_SASL_MECHANISM", "PLAIN")),
    ("advertised", "LOST", "PLAINTEXT", {}, ("advertise 127.0.0.1:", "advertised.listeners")),
]


@pytest.mark.parametrize(
    ("listener", "protocol", "more", "said"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG]
)
async def test_a_fault_is_named_with_what_to_do(
    secured: Secured, listener: str, protocol: str, more: dict[str, Any], said: tuple[str, ...]
) -> None:
    """The diagnosis contains no password."""
    settings = secured.settings(listener, protocol, **_with_files(secured, more))
    told = await diagnose(settings)
    assert [part for part in said if part not in told] == [], told
    assert PASSWORD not in told


def test_doctor_and_a_command_say_it(secured: Secured) -> None:
    """Both exit with 3, without a traceback."""
    settings = secured.settings("TLS", "SSL", kafka_ssl_cafile=None)
    given = environment(settings, DATABASE_URL="postgresql://127.0.0.1:1/none")
    event = ("publish", "leveled-up", "--user", "1", "--specialization", "PLAYER", "--to-level", "5")
    for command in (event, ("doctor",)):
        run = levelsync(*command, env=given)
        assert run.returncode == 3, run.stderr
        assert "does not trust the authority" in run.stdout + run.stderr, run.stderr
        assert "Traceback" not in run.stderr


async def test_nothing_there_is_said_as_well() -> None:
    settings = Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:1,127.0.0.1:2")
    assert await diagnose(settings) == "127.0.0.1:1: nothing answers; 127.0.0.1:2: nothing answers"


def _with_files(secured: Secured, more: dict[str, Any]) -> dict[str, Any]:
    foreign = secured.foreign.sign("foreigner")
    files = {
        ("kafka_ssl_cafile", "foreign"): secured.foreign.certificate,
        ("kafka_ssl_certfile", "mine"): secured.mine.certificate,
        ("kafka_ssl_keyfile", "mine"): secured.mine.key,
        ("kafka_ssl_certfile", "foreign"): foreign.certificate,
        ("kafka_ssl_keyfile", "foreign"): foreign.key,
    }
    return {name: files.get((name, value), value) for name, value in more.items()}
