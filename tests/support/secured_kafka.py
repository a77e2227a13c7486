"""An Apache Kafka with a listener for each kind of TLS and login, right and wrong."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.local.process import HOST, free_port
from service.settings import Settings
from tests.support.apache_kafka import ApacheKafka
from tests.support.certificates import Authority, Pair

USER, PASSWORD = "levelsync", "p@ss w0rd"
_PROTOCOLS = dict.fromkeys(("TLS", "MTLS", "EXPIRED", "ELSEWHERE"), "SSL")
_PROTOCOLS |= {"LOGIN": "SASL_SSL", "BARE": "SASL_PLAINTEXT", "LOST": "PLAINTEXT"}
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass(frozen=True)
class Secured:
    """The broker, its listeners by name, and certificates for clients."""

    server: ApacheKafka
    listeners: dict[str, str]
    authority: Path
    foreign: Authority
    mine: Pair

    def settings(self, listener: str, protocol: str, **more: Any) -> Settings:
        """Return settings of a client of one listener, which trusts the authority if it uses TLS."""
        trust = {"kafka_ssl_cafile": self.authority} if protocol.endswith("SSL") else {}
        return Settings(
            _env_file=None,
            kafka_bootstrap_servers=self.listeners.get(listener, self.server.bootstrap_servers),
            kafka_security_protocol=protocol,
            **(trust | more),
        )


@contextmanager
def secured_kafka() -> Iterator[Secured]:
    folder = Path(tempfile.mkdtemp(prefix="levelsync-secured-kafka-"))
    authority = Authority(folder)
    listeners = {name: f"{HOST}:{free_port()}" for name in _PROTOCOLS}
    port = free_port()
    server = ApacheKafka(
        folder / "kafka",
        port,
        listeners=listeners,
        scram=[f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)],
        settings=_configuration(folder, authority, {"PLAINTEXT": f"{HOST}:{port}"} | listeners),
    )
    try:
        with server:
            yield Secured(
                server, listeners, authority.certificate, Authority(folder, "foreign"), authority.sign("mine")
            )
    finally:
        shutil.rmtree(folder)


def _configuration(folder: Path, authority: Authority, listeners: dict[str, str]) -> dict[str, object]:
    own = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
    right = _keystore(folder / "right.pem", authority.sign("right", "localhost", HOST))
    keystores = {
        "TLS": right,
        "MTLS": right,
        "LOGIN": right,
        "EXPIRED": _keystore(folder / "expired.pem", authority.sign("expired", HOST, expired=True)),
        "ELSEWHERE": _keystore(folder / "elsewhere.pem", authority.sign("elsewhere", "kafka.example.org")),
    }
    advertised = listeners | {"LOST": f"{HOST}:{free_port()}"}
    settings: dict[str, object] = {
        "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in (own | _PROTOCOLS).items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.bare.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.login.scram-sha-256.sasl.jaas.config": _SCRAM,
        "listener.name.login.scram-sha-512.sasl.jaas.config": _SCRAM,
        **{
            f"listener.name.{name}.plain.sasl.jaas.config": f'{_PLAIN} user_{USER}="{PASSWORD}";'
            for name in ("login", "bare")
        },
    }
    for name, keystore in keystores.items():
        prefix = f"listener.name.{name.lower()}.ssl"
        settings |= {
            f"{prefix}.keystore.type": "PEM",
            f"{prefix}.keystore.location": keystore,
            f"{prefix}.truststore.type": "PEM",
            f"{prefix}.truststore.location": authority.certificate,
        }
    return settings


def _keystore(path: Path, pair: Pair) -> Path:
    path.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    return path
