"""Find out why Kafka cannot be used, because aiokafka's clients only report "Unable to bootstrap".

After a client has failed, this module connects once more and checks TCP, TLS, login, metadata and the addresses that
the brokers advertise. If a connection ends without an answer, it tries which protocol the listener uses.
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
_SILENCED_LOGGERS = ("aiokafka", "asyncio")


async def diagnose(settings: Settings) -> str:
    """Return why a client with these settings cannot use Kafka and what to do, or '' if no cause was found.

    Raises:
        SettingsError: The settings of the connection cannot be used.
    """
    options = connection_options(settings)
    servers = [_split_address(server) for server in str(options.pop("bootstrap_servers")).split(",") if server.strip()]
    with _silenced():
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
        if explanation := _explain(settings, cause):
            return f"{where}: {explanation}"
    return f"{where}: {await _diagnose_silence(settings, options, host, port)}"


def _explain(settings: Settings, cause: BaseException) -> str:
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
            return f"this listener accepts no login: set {_PROTOCOL}={without}"
    return ""


def _certificate(settings: Settings, error: ssl.SSLCertVerificationError) -> str:
    """Return what is wrong with the broker's certificate and what to do."""
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired: renew it"
    if error.verify_code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet: check both clocks"
    if error.verify_code in _NAME_MISMATCH:
        reason = error.verify_message.rstrip(".")
        return f"{reason}: use a name of the certificate in {PREFIX}KAFKA_BOOTSTRAP_SERVERS, or add this one to it"
    setting = f"{PREFIX}KAFKA_SSL_CAFILE"
    if settings.kafka_ssl_cafile is None:
        return f"this machine does not trust the authority of the broker's certificate: set {setting} to its file"
    return (
        f"the broker's certificate is not signed by the authority in {setting} ({settings.kafka_ssl_cafile}): "
        "set it to the right one"
    )


def _client_certificate(settings: Settings, error: ssl.SSLError) -> str:
    """Return why the broker ended the handshake because of the client certificate, and what to do."""
    setting = f"{PREFIX}KAFKA_SSL_CERTFILE"
    reason = (error.reason or "").lower().replace("_", " ")
    if settings.kafka_ssl_certfile is None:
        return f"the broker requires a client certificate: set {setting} and {PREFIX}KAFKA_SSL_KEYFILE ({reason})"
    return (
        f"the broker refuses the client certificate of {setting} ({settings.kafka_ssl_certfile}): "
        f"an authority that the broker trusts must have signed it, and it must not have expired ({reason})"
    )


async def _other_mechanism(settings: Settings, options: Mapping[str, Any], host: str, port: int) -> str:
    offered = await _mechanisms(host, port, **_without_login(options)) or ["another mechanism"]
    asked = settings.kafka_sasl_mechanism or "PLAIN"
    return f"the broker offers {' and '.join(offered)}, not {asked}: set {PREFIX}KAFKA_SASL_MECHANISM"


def _without_login(options: Mapping[str, Any]) -> dict[str, Any]:
    protocol = str(options["security_protocol"]).replace("SASL_", "")
    return {"security_protocol": protocol, "ssl_context": options["ssl_context"]}


async def _diagnose_silence(settings: Settings, options: Mapping[str, Any], host: str, port: int) -> str:
    """Try other protocols, because a listener just ends the connection of a client that uses the wrong one."""
    protocol = settings.kafka_security_protocol
    if not await _accepts(host, port):
        return NOTHING_ANSWERS
    if protocol.endswith("SSL"):
        if await _mechanisms(host, port, security_protocol="PLAINTEXT") is not None:
            return f"this listener does not use TLS: set {_PROTOCOL}={protocol.replace('SSL', 'PLAINTEXT')}"
    elif await _uses_tls(host, port):
        with_tls = "SSL" if protocol == "PLAINTEXT" else "SASL_SSL"
        return f"this listener uses TLS: set {_PROTOCOL}={with_tls}, or SASL_SSL if it requires a login"
    offered = await _mechanisms(host, port, **_without_login(options))
    if offered and protocol in _LOGIN_PROTOCOL:
        login = _LOGIN_PROTOCOL[protocol]
        return f"this listener requires a login with {' or '.join(offered)}: set {_PROTOCOL}={login}, user and password"
    if protocol.endswith("SSL") and settings.kafka_ssl_certfile is None:
        return f"the connection ends after the TLS handshake: the broker may require {PREFIX}KAFKA_SSL_CERTFILE"
    return "the connection ends without an answer: check that a Kafka broker listens there"


async def _advertised(brokers: list[tuple[str, int]]) -> str:
    """Return which advertised addresses cannot be reached from here and what to do, or ''."""
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
    """Return the SASL mechanisms that a listener offers, empty if it has no login, or None if it does not answer."""
    try:
        async with asyncio.timeout(_SECONDS), _connection(host, port, **options) as connection:
            answer = await connection.send(SaslHandShakeRequest("levelsync asks"))
    except (KafkaError, OSError, TimeoutError, EOFError):
        return None
    return list(answer.enabled_mechanisms)


async def _accepts(host: str, port: int) -> bool:
    """Return whether something accepts a TCP connection there."""
    return await _connects(host, port, None)


async def _uses_tls(host: str, port: int) -> bool:
    """Return whether a TLS handshake succeeds there with any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent over it
    return await _connects(host, port, context)


async def _connects(host: str, port: int, context: ssl.SSLContext | None) -> bool:
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


def _split_address(server: str) -> tuple[str, int]:
    """Split a bootstrap server into host and port, as aiokafka does. The default port is 9092."""
    host, colon, port = server.strip().rpartition(":")
    if not colon or not port.isdecimal():
        return server.strip().strip("[]"), 9092
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Suppress the libraries' log lines about these connections."""
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in _SILENCED_LOGGERS]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
