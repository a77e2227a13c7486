"""Connections to Kafka: their settings, how they end, what the cluster is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiokafka.client
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

from service.settings import PREFIX, Settings, SettingsError

if TYPE_CHECKING:
    from faststream.security import BaseSecurity

CLOSE_TIMEOUT = 2.0
"""Seconds that a broker gets to answer the end of a connection (TLS) before the connection is cut off."""
_CUT_TIMEOUT = 1.0
_bootstrapping: ContextVar[list[AIOKafkaConnection]] = ContextVar("bootstrapping")
_create_conn = aiokafka.client.create_conn
_bootstrap = AIOKafkaClient.bootstrap
_send = AIOKafkaConnection.send


def connection_options(settings: Settings) -> dict[str, Any]:
    """Bootstrap servers and security, as aiokafka's producer, consumer and admin client name them.

    Raises:
        SettingsError: for a protocol whose user, password or files are missing or unreadable.
    """
    _repair_aiokafka()
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": _ssl_context(settings),
        **_sasl_options(settings),
    }


def faststream_security(settings: Settings) -> BaseSecurity:
    """Give the same as `connection_options`, as FastStream's broker takes it.

    Raises:
        SettingsError: as `connection_options`.
    """
    from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512  # noqa: PLC0415 - slow

    options = connection_options(settings)
    context, with_tls = options["ssl_context"], options["ssl_context"] is not None
    if "sasl_mechanism" not in options:
        return BaseSecurity(ssl_context=context, use_ssl=with_tls)
    kinds: dict[str, Callable[..., BaseSecurity]] = {
        "PLAIN": SASLPlaintext,
        "SCRAM-SHA-256": SASLScram256,
        "SCRAM-SHA-512": SASLScram512,
    }
    return kinds[options["sasl_mechanism"]](
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        ssl_context=context,
        use_ssl=with_tls,
    )


def _ssl_context(settings: Settings) -> ssl.SSLContext | None:
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile:
            password = settings.kafka_ssl_key_password
            context.load_cert_chain(
                settings.kafka_ssl_certfile,
                settings.kafka_ssl_keyfile,
                lambda: password.get_secret_value() if password else "",  # without one, OpenSSL asks the terminal
            )
    except OSError as error:  # SSLError is one
        names = ", ".join(f"{PREFIX}KAFKA_SSL_{name}" for name in ("CAFILE", "CERTFILE", "KEYFILE", "KEY_PASSWORD"))
        raise SettingsError(f"{names}: a file cannot be used: {error}") from error
    return context


def _sasl_options(settings: Settings) -> dict[str, str]:
    if not settings.kafka_security_protocol.startswith("SASL"):
        return {}
    if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        needed = f"{PREFIX}KAFKA_SASL_USERNAME and {PREFIX}KAFKA_SASL_PASSWORD"
        raise SettingsError(f"{needed}: both are needed with {settings.kafka_security_protocol}")
    return {
        "sasl_mechanism": settings.kafka_sasl_mechanism or "PLAIN",
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
    }


async def close(client: AIOKafkaClient) -> None:
    """Close every connection of a client; cut off those whose broker does not answer in time."""
    connections = list(client._conns.values())  # noqa: SLF001 - aiokafka's own close waits for the broker without end
    transports = _transports(connections)
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await client.close()
    except TimeoutError:
        pass  # what is left is cut off
    finally:
        await _cut_off(connections, transports)


async def _cut_off(connections: Sequence[AIOKafkaConnection], transports: Sequence[asyncio.Transport]) -> None:
    for transport in transports:
        transport.abort()
    if connections:
        await asyncio.wait([connection.close() for connection in connections], timeout=_CUT_TIMEOUT)


def _transports(connections: Sequence[AIOKafkaConnection]) -> list[asyncio.Transport]:
    writers = [connection._writer for connection in connections]  # noqa: SLF001 - closed ones have none
    return [writer.transport for writer in writers if writer is not None]


def _repair_aiokafka() -> None:
    """Let every client of this process close a bootstrap's connection, and name a connection that has ended.

    aiokafka leaves the connection of a bootstrap that is cancelled to the garbage collector, and expects OSError only
    where it writes to a connection.
    """
    aiokafka.client.create_conn = _create_and_note
    AIOKafkaClient.bootstrap = _bootstrap_or_close
    AIOKafkaConnection.send = _send_or_close


def _send_or_close(connection: AIOKafkaConnection, *request: Any, **options: Any) -> Any:
    """Send a request.

    Raises:
        KafkaConnectionError: the connection has ended; uvloop says so with a RuntimeError.
    """
    try:
        return _send(connection, *request, **options)
    except KafkaError:
        raise
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} broken: {error}") from error


async def _create_and_note(*address: Any, **options: Any) -> AIOKafkaConnection:
    connection = await _create_conn(*address, **options)
    if "on_close" not in options:  # a bootstrap's connection, which only that function knows
        _bootstrapping.get().append(connection)
    return connection


async def _bootstrap_or_close(client: AIOKafkaClient) -> None:
    """Bootstrap; close the connection where the answer to the first request is not waited for."""
    opened: list[AIOKafkaConnection] = []
    token = _bootstrapping.set(opened)
    try:
        await _bootstrap(client)
    except BaseException:
        await _cut_off(opened, _transports(opened))
        raise
    finally:
        _bootstrapping.reset(token)


EMBEDDED_CLUSTER_PREFIX = "levelsync-embedded-"
"""The name of every cluster of `service.local` begins so. It has no idempotent producer and no transactions."""


@dataclass(frozen=True)
class Cluster:
    """A cluster at one moment. `partitions` has the number of partitions of every topic."""

    id: str
    brokers: int
    partitions: dict[str, int]

    @property
    def is_embedded(self) -> bool:
        """Whether this is the broker of `levelsync up`, `levelsync demo` and the tests."""
        return self.id.startswith(EMBEDDED_CLUSTER_PREFIX)


@asynccontextmanager
async def admin_client(settings: Settings, *, timeout: float = 10) -> AsyncIterator[AIOKafkaAdminClient]:  # noqa: ASYNC109 - a request's bound
    """Open an admin client whose requests take at most `timeout` seconds each.

    Raises:
        aiokafka.errors.KafkaConnectionError: when no bootstrap server answers.
        SettingsError: as `connection_options`.
    """
    client = AIOKafkaAdminClient(**connection_options(settings), request_timeout_ms=int(timeout * 1000))
    try:
        await client.start()
        yield client
    finally:
        await close(client._client)  # noqa: SLF001 - its own close waits for the broker, however long


async def describe_cluster(settings: Settings, *, timeout: float = 10) -> Cluster:  # noqa: ASYNC109 - a request's bound
    """Ask the cluster. Topics are listed, never asked for by name: that would make a missing one.

    Raises:
        aiokafka.errors.KafkaError: when the cluster does not answer.
        SettingsError: as `connection_options`.
    """
    async with admin_client(settings, timeout=timeout) as client:
        return await read_cluster(client)


async def read_cluster(client: AIOKafkaAdminClient) -> Cluster:
    """As `describe_cluster`, over an admin client that is open already."""
    answer: dict[str, Any] = await client.describe_cluster()
    topics = await client.describe_topics()
    return Cluster(
        id=answer["cluster_id"] or "",
        brokers=len(answer["brokers"]),
        partitions={topic["topic"]: len(topic["partitions"]) for topic in topics},
    )
