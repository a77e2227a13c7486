"""Settings: environment variables with the prefix ``LEVELSYNC_``, read once (docs: README, Settings).

Sources, the later one wins: ``.levelsync/up.env`` (written by ``levelsync up``, so that other commands in the
same folder find it), ``.env``, the environment.
"""

from __future__ import annotations

import difflib
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SettingsSourceError

PREFIX = "LEVELSYNC_"
UP_ENV_FILE = Path(".levelsync") / "up.env"
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
# What Kubernetes injects for a service called "levelsync", and the tests' own variables.
_NOT_OURS = re.compile(r"LEVELSYNC_(TEST_|PORT$|PORT_|SERVICE_)")


def parse_duration(value: object) -> object:
    """``"6h"``, ``"10s"``, ``"250ms"``, ``"1d"`` or plain seconds, as a timedelta; anything else unchanged."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", value)
        if match is None:
            raise ValueError("write a duration as 10s, 5m, 6h or 1d")
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Direction = Literal["progress_to_license", "license_to_progress", "highest"]


class SettingsError(Exception):
    """A setting that cannot be used. Its text names the variable and what it must be."""


class Settings(BaseSettings):
    """Every setting of levelsync. The field ``x`` is the variable ``LEVELSYNC_X``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=(UP_ENV_FILE, ".env"), extra="ignore", frozen=True, env_ignore_empty=True
    )

    database_url: SecretStr = SecretStr("postgresql://postgres@localhost:5432/postgres")

    kafka_bootstrap_servers: str = "localhost:9092"
    kafka_group_id: str = Field("levelsync", min_length=1)
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = None
    kafka_ssl_certfile: Path | None = None
    kafka_ssl_keyfile: Path | None = None
    kafka_topic_partitions: int = Field(4, ge=1, le=10_000)
    kafka_topic_replication: int | None = Field(None, ge=1)
    kafka_create_topics: bool = True

    batch_max_records: int = Field(5000, ge=1, le=100_000)
    batch_max_bytes: ByteSize = Field(ByteSize(16_000_000), ge=1_000)
    batch_max_wait: Duration = timedelta(milliseconds=200)
    apply_since: datetime | None = None
    license_defaults: dict[str, Any] = {}
    progress_defaults: dict[str, Any] = {}
    dead_letter_retention: Duration = timedelta(days=90)

    http_host: str = "127.0.0.1"
    http_port: int = Field(8000, ge=0, le=65535)

    jwt_secret: SecretStr | None = None
    jwt_jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_roles_claim: str = "roles"
    jwt_roles_from_users: bool | None = None
    """None: true with a secret, false with a JWKS URL."""

    reconcile_every: Duration = timedelta(hours=6)
    reconcile_execute: bool = False
    reconcile_direction: Direction = "highest"
    reconcile_grace: Duration = timedelta(seconds=10)
    reconcile_breaker_share: float = Field(0.05, ge=0, le=1)
    reconcile_breaker_pairs: int = Field(1000, ge=0)

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("apply_since")
    @classmethod
    def _apply_since_has_a_zone(cls, value: datetime | None) -> datetime | None:
        """A time without a zone is read as UTC: events are compared on UTC."""
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value

    @field_validator("database_url")
    @classmethod
    def _database_is_postgresql(cls, value: SecretStr) -> SecretStr:
        if not re.match(r"postgres(ql)?(\+\w+)?://", value.get_secret_value()):
            raise ValueError("must be postgresql://user:password@host:port/database")
        return value


def load_settings() -> Settings:
    """Read the settings once.

    Raises:
        SettingsError: with one line a bad value, naming the variable and never showing a secret's value.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("\n".join(lines)) from None
    except SettingsSourceError as error:  # JSON that does not parse
        raise SettingsError(str(error)) from None


def unknown_names(environment: dict[str, str] | None = None) -> dict[str, str | None]:
    """``LEVELSYNC_`` variables that no setting reads, each with the nearest known name (or None)."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    names = os.environ if environment is None else environment
    unknown = sorted(n for n in names if n.startswith(PREFIX) and n not in known and not _NOT_OURS.match(n))
    return {n: next(iter(difflib.get_close_matches(n, known, n=1)), None) for n in unknown}
