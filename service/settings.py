"""Settings: environment variables with the prefix ``LEVELSYNC_``, read once. `make docs` writes their reference.

A later source overrides an earlier one: ``.levelsync/up.env`` (``levelsync up`` writes it, so that other commands in
the same folder find its servers), ``.env``, the files in the folder ``LEVELSYNC_SECRETS_DIR``, the environment.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SettingsSourceError

from service.core.names import Direction, fold

PREFIX = "LEVELSYNC_"
SECRETS_DIR = f"{PREFIX}SECRETS_DIR"
UP_ENV_FILE = Path(".levelsync") / "up.env"
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Variables that Kubernetes injects for services named "levelsync" and "levelsync-…", and those of the tests.
_NOT_OURS = re.compile(r"LEVELSYNC_(TEST_|PORT$|PORT_|SERVICE_|\w+_SERVICE_(HOST$|PORT)|\w+_PORT_)")


def parse_duration(value: object) -> object:
    """Return ``"6h"``, ``"10s"``, ``"250ms"``, ``"1d"`` or a number of seconds as a timedelta.

    A value that is neither text nor a number is returned unchanged.

    Raises:
        ValueError: The text is not a duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", value)
        if match is None:
            raise ValueError("write a duration as 10s, 5m, 6h or 1d")
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
SpecializationName = Annotated[str, Field(min_length=1, max_length=50)]
HighestLevel = Annotated[int, Field(strict=True, ge=1, le=2_147_483_647)]


class SettingsError(Exception):
    """A setting cannot be used. The text names the variable and what it must be."""


class _Environment(EnvSettingsSource):
    """The environment without the variables that Kubernetes injects for services, such as levelsync-http."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = super()._load_env_vars()
        return {name: value for name, value in found.items() if not _is_service_link(value)}


class Settings(BaseSettings):
    """Every setting of levelsync. The field ``x`` is the variable ``LEVELSYNC_X``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=(UP_ENV_FILE, ".env"),
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    secrets_dir: Path | None = None
    """A folder with one file for each secret. Each file has the name of its variable."""

    database_pool_size: int = Field(10, ge=5, le=1000)
    """The maximum number of database connections of a process."""
    database_url: SecretStr = SecretStr("postgresql://postgres@localhost:5432/postgres")
    """The URL of the application's database, as cloud consoles and libpq write it. See docs/connecting.md."""

    kafka_bootstrap_servers: str = "localhost:9092"
    """The brokers to connect to first, separated by commas."""
    kafka_group_id: str = Field("levelsync", min_length=1)
    """The consumer group. Use a different one for each database."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """The protocol of the brokers: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """The SASL mechanism: `PLAIN` (if unset), `SCRAM-SHA-256` or `SCRAM-SHA-512`."""
    kafka_sasl_username: str | None = None
    """The SASL user. Required with SASL."""
    kafka_sasl_password: SecretStr | None = None
    """The password of the SASL user. Required with SASL."""
    kafka_ssl_cafile: Path | None = None
    """PEM file with the certificates to trust. If unset, those of the system are trusted."""
    kafka_ssl_certfile: Path | None = None
    """PEM file with the client certificate."""
    kafka_ssl_keyfile: Path | None = None
    """PEM file with the key of the client certificate."""
    kafka_ssl_key_password: SecretStr | None = None
    """The password of that key."""
    kafka_topic_partitions: int = Field(4, ge=1, le=10_000)
    """The number of partitions of the topics that levelsync creates."""
    kafka_topic_replication: int | None = Field(None, ge=1)
    """The replication factor of the topics that levelsync creates. If unset, it is the number of brokers, at most 3."""
    kafka_create_topics: bool = True
    """Whether levelsync creates missing topics. With `false` the service waits until they exist."""

    batch_max_records: int = Field(5000, ge=1, le=100_000)
    """The maximum number of records of a batch."""
    batch_max_bytes: ByteSize = Field(ByteSize(16_000_000), ge=1_000)
    """The maximum size of a batch in bytes. A batch always contains at least one record."""
    record_max_bytes: ByteSize = Field(ByteSize(16_000_000), ge=100_000)
    """The maximum size of a record after decompression. A larger one becomes a dead letter `too_large`, with the first
    64 KB of its value.
    """
    batch_max_wait: Duration = timedelta(milliseconds=200)
    """How long a poll waits for records."""
    apply_since: datetime | None = None
    """A time, in UTC unless it has a time zone. Events that occurred before it count as `superseded`."""
    license_defaults: dict[str, Any] = {}
    """JSON object with values for the application's own columns of a new `user_licenses` row."""
    progress_defaults: dict[str, Any] = {}
    """JSON object with values for the application's own columns of a new `specialization_progress` row."""
    max_levels: dict[SpecializationName, HighestLevel] = {}
    """JSON object with the highest level of each specialization, such as `{"PLAYER": 8}`. It is used where
    `specializations` has no `max_levels` column, no value in it, or no row. A value in the database comes first.
    """
    dead_letter_retention: Duration = timedelta(days=90)
    """How long dead letters are stored, open ones too. With `0` they are never deleted."""

    http_host: str = "127.0.0.1"
    """The address to listen on. Use `0.0.0.0` in a container."""
    http_port: int = Field(8000, ge=0, le=65535)
    """The port to listen on. With `0` the service uses a free port and prints it."""
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """A separate port for `/metrics`, `/livez` and `/readyz`. If unset, they are on `HTTP_PORT`."""
    runbook_url: str | None = None
    """The address of your copy of docs/runbook.md, such as `https://wiki.example/levelsync`. Alerts link to it."""

    jwt_secret: SecretStr | None = None
    """The secret that verifies tokens (HS256, HS384, HS512) and signs those of `levelsync token`. `serve` refuses a
    secret of fewer than 32 bytes. The role `api` needs this setting or `JWT_JWKS_URL`.
    """
    jwt_jwks_url: str | None = None
    """The URL of an identity provider's keys, to use instead of a secret. It requires issuer and audience."""
    jwt_issuer: str | None = None
    """The `iss` that tokens must have."""
    jwt_audience: str | None = None
    """The `aud` that tokens must have."""
    jwt_roles_claim: str = "roles"
    """The claim with the roles: its name, a dotted path, or a JSON Pointer (which begins with `/`)."""
    jwt_roles_from_users: bool | None = None
    """Whether a token without that claim gets its role from `users`. If unset, `true` with a secret and `false` with a
    JWKS URL.
    """

    reconcile_every: Duration = timedelta(hours=6)
    """How often the role `schedule` requests a run. With `0` it requests none."""
    reconcile_execute: bool = False
    """Whether the scheduled runs heal."""
    reconcile_direction: Direction = "highest"
    """The direction of the scheduled runs."""
    reconcile_grace: Duration = timedelta(seconds=10)
    """The time between scan and confirmation. It must be longer than a publisher's delay from its commit to Kafka."""
    reconcile_breaker_share: float = Field(0.05, ge=0, le=1)
    """The share of the pairs that a run may change. If `RECONCILE_BREAKER_PAIRS` is more, that is the limit."""
    reconcile_breaker_pairs: int = Field(1000, ge=0)
    """The number of pairs that any run may change."""

    log_format: Literal["json", "console"] = "console"
    """The format of the log on stderr: `console`, or `json` with one object a line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the strongest first: the environment, the folder of secrets, the files."""
        folder = secrets_folder()
        secrets = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if folder else ()
        return init_settings, _Environment(settings_cls), *secrets, dotenv_settings

    @field_validator("apply_since")
    @classmethod
    def _apply_since_has_a_zone(cls, value: datetime | None) -> datetime | None:
        """Read a time without a time zone as UTC, as the times of events are compared in UTC."""
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value

    @field_validator("max_levels")
    @classmethod
    def _each_specialization_once(cls, value: dict[str, int]) -> dict[str, int]:
        """Refuse two spellings of one name, which could have two highest levels."""
        for name in value:
            if same := [other for other in value if other != name and fold(other) == fold(name)]:
                raise ValueError(f"{name} and {same[0]} are one name apart from case: name it once")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_is_postgresql(cls, value: SecretStr) -> SecretStr:
        if not re.match(r"\s*postgres(ql)?(\+\w+)?://", value.get_secret_value(), re.IGNORECASE):
            raise ValueError("must be postgresql://user:password@host:port/database")
        return value


def secrets_folder() -> Path | None:
    """Return the folder that LEVELSYNC_SECRETS_DIR names, or None if the variable is not set.

    Raises:
        SettingsError: It is not a readable folder.
    """
    name = os.environ.get(SECRETS_DIR)
    if not name:
        return None
    if not Path(name).is_dir() or not os.access(name, os.R_OK | os.X_OK):
        raise SettingsError(f"{SECRETS_DIR}: {name} is not a folder that can be read")
    return Path(name)


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: A value cannot be used. The text has one line for each, with its variable and without secrets.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("\n".join(lines)) from None
    except SettingsSourceError as error:  # JSON that does not parse
        raise SettingsError(str(error)) from None
    except OSError as error:
        raise SettingsError(f"{SECRETS_DIR}: {error.filename} cannot be read: {error.strerror}") from None


def unknown_names(environment: dict[str, str] | None = None) -> dict[str, str | None]:
    """Return the ``LEVELSYNC_`` variables and secrets that are not settings, each with the nearest setting or None."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    names = _given_names() if environment is None else environment
    unknown = sorted(
        name
        for name, value in names.items()
        if name.startswith(PREFIX) and name not in known and not _NOT_OURS.match(name) and not _is_service_link(value)
    )
    return {n: next(iter(difflib.get_close_matches(n, known, n=1)), None) for n in unknown}


def _given_names() -> dict[str, str]:
    folder = secrets_folder()
    files = {file.name: "" for file in folder.iterdir()} if folder else {}
    return {**files, **os.environ}


def _is_service_link(value: str | None) -> bool:
    return (value or "").startswith(("tcp://", "udp://"))
