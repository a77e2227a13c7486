"""Says why Kafka cannot be used. aiokafka's clients keep the cause to themselves: "Unable to bootstrap".

It connects once more, by itself, after a client has failed: TCP, TLS, login, metadata, then the addresses that the
brokers advertise. Where a connection ends without a word, it asks the listener what it speaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import IllegalSaslStateError, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from service.settings import PREFIX, Settings
from service.stream.connection import connection_options

NOTHING_ANSWERS = "nothing answers"
_SECONDS = 5
_PROTOCOL = f"{PREFIX}KAFKA_SECURITY_PROTOCOL"
_EXPIRED, _NOT_YET_VALID = 10, 9
_NAME_MISMATCH = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_LOGIN_PROTOCOL = {"PLAINTEXT": "SASL_PLAINTEXT", "SSL": "SASL_SSL"}
_QUIET = ("aiokafka", "asyncio")


async def diagnose(settings: Settings) -> str:
    """Say what keeps a client of these settings from Kafka, and what to do; '' where nothing was found.

    Raises:
        SettingsError: as `connection_options`.
    """
    options = connection_options(settings)
    servers = [_address(server) for server in str(options.pop("bootstrap_servers")).split(",") if server.strip()]
    with _quiet():
        found = [await _bootstrap(settings, options, host, port) for host, port in servers]
    return "" if "" in found else "; ".join(dict.fromkeys(found))


async def _bootstrap(settings: Settings, options: Mapping[str, Any], host: str, port: int) -> str:
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(3 * _SECONDS), _connection(host, port, **options) as connection:
            answer = await connection.send(MetadataRequest([]))
            return await _advertised([(broker[1], broker[2]) for broker in answer.brokers])
    except (KafkaError, OSError, TimeoutError, EOFError) as error:
        causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UnsupportedSaslMechanismError):
            return f"{where}: {await _other_mechanism(settings, options, host, port)}"
        if words := _words(settings, cause):
            return f"{where}: {words}"
    return f"{where}: {await _silence(settings, options, host, port)}"


def _words(settings: Settings, cause: BaseException) -> str:
    match cause:
        case ssl.SSLCertVerificationError():
            return _certificate(settings, cause)
        case ssl.SSLError() if "ALERT" in (cause.reason or ""):
            return _client_certificate(settings, cause)
        case SaslAuthenticationFailed():
            name = settings.kafka_sasl_username
            return (
                f"the broker refuses the login of {name}: an unknown user or a wrong password. "
                f"Set {PREFIX}KAFKA_SASL_USERNAME and {PREFIX}KAFKA_SASL_PASSWORD ({cause})"
            )
        case IllegalSaslStateError():
            without = settings.kafka_security_protocol.removeprefix("SASL_")
            return f"this listener wants no login: set {_PROTOCOL}={without}"
    return ""


def _certificate(settings: Settings, error: ssl.SSLCertVerificationError) -> str:
    """Say what is wrong with the broker's certificate."""
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired: renew it"
    if error.verify_code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet: look at both clocks"
    if error.verify_code in _NAME_MISMATCH:
        said = error.verify_message.rstrip(".")
        return f"{said}: write a name of the certificate in {PREFIX}KAFKA_BOOTSTRAP_SERVERS, or add this one to it"
    setting = f"{PREFIX}KAFKA_SSL_CAFILE"
    if settings.kafka_ssl_cafile is None:
        return f"this machine does not trust the authority of the broker's certificate: set {setting} to its file"
    return (
        f"the broker's certificate is not signed by the authority in {setting} ({settings.kafka_ssl_cafile}): "
        "set it to the right one"
    )


def _client_certificate(settings: Settings, error: ssl.SSLError) -> str:
    """Say what the broker, which ended the handshake, thinks of our certificate."""
    setting = f"{PREFIX}KAFKA_SSL_CERTFILE"
    said = (error.reason or "").lower().replace("_", " ")
    if settings.kafka_ssl_certfile is None:
        return f"the broker wants a client certificate: set {setting} and {PREFIX}KAFKA_SSL_KEYFILE ({said})"
    return (
        f"the broker refuses the client certificate of {setting} ({settings.kafka_ssl_certfile}): "
        f"it must be signed by an authority that the broker trusts, and not be expired ({said})"
    )


async def _other_mechanism(settings: Settings, options: Mapping[str, Any], host: str, port: int) -> str:
    offered = await _mechanisms(host, port, **_without_login(options)) or ["another mechanism"]
    asked = settings.kafka_sasl_mechanism or "PLAIN"
    return f"the broker offers {' and '.join(offered)}, not {asked}: set {PREFIX}KAFKA_SASL_MECHANISM"


def _without_login(options: Mapping[str, Any]) -> dict[str, Any]:
    protocol = str(options["security_protocol"]).replace("SASL_", "")
    return {"security_protocol": protocol, "ssl_context": options["ssl_context"]}


async def _silence(settings: Settings, options: Mapping[str, Any], host: str, port: int) -> str:
    """Ask the listener what it speaks: with a client that speaks something else, it just ends the connection."""
    protocol = settings.kafka_security_protocol
    if not await _accepts(host, port):
        return NOTHING_ANSWERS
    if protocol.endswith("SSL"):
        if await _mechanisms(host, port, security_protocol="PLAINTEXT") is not None:
            return f"this listener speaks no TLS: set {_PROTOCOL}={protocol.replace('SSL', 'PLAINTEXT')}"
    elif await _speaks_tls(host, port):
        with_tls = "SSL" if protocol == "PLAINTEXT" else "SASL_SSL"
        return f"this listener speaks TLS: set {_PROTOCOL}={with_tls}, or SASL_SSL where it wants a login"
    offered = await _mechanisms(host, port, **_without_login(options))
    if offered and protocol in _LOGIN_PROTOCOL:
        login = _LOGIN_PROTOCOL[protocol]
        return f"this listener wants a login by {' or '.join(offered)}: set {_PROTOCOL}={login}, user and password"
    if protocol.endswith("SSL") and settings.kafka_ssl_certfile is None:
        return f"the connection ends after the TLS handshake: the broker may want {PREFIX}KAFKA_SSL_CERTFILE"
    return "the connection ends without an answer: is a Kafka broker listening there?"


async def _advertised(brokers: list[tuple[str, int]]) -> str:
    """Name what brokers advertise and what cannot be reached from here."""
    unreachable = [f"{host}:{port}" for host, port in brokers if not await _accepts(host, port)]
    if not unreachable:
        return ""
    return (
        f"the brokers advertise {', '.join(unreachable)}, which cannot be reached from here: "
        "correct advertised.listeners of the brokers, or the network"
    )


@asynccontextmanager
async def _connection(host: str, port: int, **options: Any) -> AsyncIterator[AIOKafkaConnection]:
    connection = await create_conn(host, port, client_id="levelsync", request_timeout_ms=_SECONDS * 1000, **options)
    try:
        yield connection
    finally:
        await connection.close()


async def _mechanisms(host: str, port: int, **options: Any) -> list[str] | None:
    """Ask which logins a listener offers: none of them where it wants no login, None where it does not answer."""
    try:
        async with asyncio.timeout(_SECONDS), _connection(host, port, **options) as connection:
            answer = await connection.send(SaslHandShakeRequest("levelsync asks"))
    except (KafkaError, OSError, TimeoutError, EOFError):
        return None
    return list(answer.enabled_mechanisms)


async def _accepts(host: str, port: int) -> bool:
    """Say whether something accepts a TCP connection there."""
    return await _opens(host, port, None)


async def _speaks_tls(host: str, port: int) -> bool:
    """Say whether a TLS handshake begins there, whatever the certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent over it
    return await _opens(host, port, context)


async def _opens(host: str, port: int, context: ssl.SSLContext | None) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()
    return True


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _address(server: str) -> tuple[str, int]:
    """Take a bootstrap server apart, as aiokafka does: the port is 9092 where none is named."""
    host, colon, port = server.strip().rpartition(":")
    if not colon or not port.isdecimal():
        return server.strip().strip("[]"), 9092
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own lines about these connections out of the log."""
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in _QUIET]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
