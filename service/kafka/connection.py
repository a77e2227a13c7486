"""How to reach Kafka: the settings as the keyword arguments that every aiokafka client takes."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from service.settings import PREFIX, Settings, SettingsError

if TYPE_CHECKING:
    from faststream.security import BaseSecurity


def connection_options(settings: Settings) -> dict[str, Any]:
    """Bootstrap servers and security, as aiokafka's producer, consumer and admin client name them.

    Raises:
        SettingsError: for a protocol whose user, password or files are missing or unreadable.
    """
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
