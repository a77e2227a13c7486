"""Connections to Kafka: their settings, how they are closed, and the description of the cluster."""

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
"""Seconds that a broker has to answer the end of a TLS connection, before the connection is aborted."""
_ABORT_TIMEOUT = 1.0
_bootstrapping: ContextVar[list[AIOKafkaConnection]] = ContextVar("bootstrapping")
_create_conn = aiokafka.client.create_conn
_bootstrap = AIOKafkaClient.bootstrap
_send = AIOKafkaConnection.send


def connection_options(settings: Settings) -> dict[str, Any]:
    """Return bootstrap servers and security as arguments of aiokafka's producer, consumer and admin client.

    Raises:
        SettingsError: The user, password or files of the protocol are missing or cannot be read.
    """
    _patch_aiokafka()
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": _ssl_context(settings),
        **_sasl_options(settings),
    }


def faststream_security(settings: Settings) -> BaseSecurity:
    """Return the security settings as an argument of FastStream's broker.

    Raises:
        SettingsError: The user, password or files of the protocol are missing or cannot be read.
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
                lambda: password.get_secret_value() if password else "",  # otherwise OpenSSL prompts on the terminal
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
        raise SettingsError(f"{needed}: both are required with {settings.kafka_security_protocol}")
    return {
        "sasl_mechanism": settings.kafka_sasl_mechanism or "PLAIN",
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
    }


async def close(client: AIOKafkaClient) -> None:
    """Close every connection of a client. Abort those whose broker does not answer in time."""
    connections = list(client._conns.values())  # noqa: SLF001 - aiokafka's close waits for the broker without a limit
    transports = _transports(connections)
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await client.close()
    except TimeoutError:
        pass  # the connections that remain are aborted
    finally:
        await _abort(connections, transports)


async def _abort(connections: Sequence[AIOKafkaConnection], transports: Sequence[asyncio.Transport]) -> None:
    for transport in transports:
        transport.abort()
    if connections:
        await asyncio.wait([connection.close() for connection in connections], timeout=_ABORT_TIMEOUT)


def _transports(connections: Sequence[AIOKafkaConnection]) -> list[asyncio.Transport]:
    writers = [connection._writer for connection in connections]  # noqa: SLF001 - None in a closed connection
    return [writer.transport for writer in writers if writer is not None]


def _patch_aiokafka() -> None:
    """Patch two defects of aiokafka for every client of this process.

    aiokafka does not close the connection of a cancelled bootstrap. And where it writes to a connection it expects only
    OSError, but uvloop raises RuntimeError if the connection has ended.
    """
    aiokafka.client.create_conn = _create_and_record
    AIOKafkaClient.bootstrap = _bootstrap_or_close
    AIOKafkaConnection.send = _send_or_close


def _send_or_close(connection: AIOKafkaConnection, *request: Any, **options: Any) -> Any:
    """Send a request. Close a connection that has ended.

    Raises:
        KafkaConnectionError: The connection has ended.
    """
    try:
        return _send(connection, *request, **options)
    except KafkaError:
        raise
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} broken: {error}") from error


async def _create_and_record(*address: Any, **options: Any) -> AIOKafkaConnection:
    connection = await _create_conn(*address, **options)
    if "on_close" not in options:  # the connection of a bootstrap, which aiokafka stores nowhere else
        _bootstrapping.get().append(connection)
    return connection


async def _bootstrap_or_close(client: AIOKafkaClient) -> None:
    """Bootstrap a client. Close the opened connections if the bootstrap fails or is cancelled."""
    opened: list[AIOKafkaConnection] = []
    token = _bootstrapping.set(opened)
    try:
        await _bootstrap(client)
    except BaseException:
        await _abort(opened, _transports(opened))
        raise
    finally:
        _bootstrapping.reset(token)


EMBEDDED_CLUSTER_PREFIX = "levelsync-embedded-"
"""The prefix of the cluster ids of `service.local`. Its broker has no idempotent producers and no transactions."""


@dataclass(frozen=True)
class Cluster:
    """A cluster as it was described. `partitions` is the number of partitions of every topic."""

    id: str
    brokers: int
    partitions: dict[str, int]

    @property
    def is_embedded(self) -> bool:
        """Whether this is the broker of `levelsync up`, `levelsync demo` and the tests."""
        return self.id.startswith(EMBEDDED_CLUSTER_PREFIX)


@asynccontextmanager
async def admin_client(settings: Settings, *, timeout: float = 10) -> AsyncIterator[AIOKafkaAdminClient]:  # noqa: ASYNC109 - limits a request
    """Open an admin client whose requests take at most `timeout` seconds each.

    Raises:
        aiokafka.errors.KafkaConnectionError: No bootstrap server answers.
        SettingsError: The settings of the connection cannot be used.
    """
    client = AIOKafkaAdminClient(**connection_options(settings), request_timeout_ms=int(timeout * 1000))
    try:
        await client.start()
        yield client
    finally:
        await close(client._client)  # noqa: SLF001 - its own close waits for the broker without a limit


async def describe_cluster(settings: Settings, *, timeout: float = 10) -> Cluster:  # noqa: ASYNC109 - limits a request
    """Read the cluster's id, brokers and topics. It lists the topics, as a request by name would create a missing one.

    Raises:
        aiokafka.errors.KafkaError: The cluster does not answer.
        SettingsError: The settings of the connection cannot be used.
    """
    async with admin_client(settings, timeout=timeout) as client:
        return await read_cluster(client)


async def read_cluster(client: AIOKafkaAdminClient) -> Cluster:
    """Read the same as `describe_cluster` over an open admin client."""
    answer: dict[str, Any] = await client.describe_cluster()
    topics = await client.describe_topics()
    return Cluster(
        id=answer["cluster_id"] or "",
        brokers=len(answer["brokers"]),
        partitions={topic["topic"]: len(topic["partitions"]) for topic in topics},
    )
