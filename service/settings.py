"""Settings: environment variables with the prefix ``LEVELSYNC_``, read once. `make docs` writes their reference.

Sources, the later one wins: ``.levelsync/up.env`` (written by ``levelsync up``, so that other commands in the
same folder find it), ``.env``, the files in the folder ``LEVELSYNC_SECRETS_DIR``, the environment.
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
# What Kubernetes injects for services called "levelsync" and "levelsync-…", and the tests' own variables.
_NOT_OURS = re.compile(r"LEVELSYNC_(TEST_|PORT$|PORT_|SERVICE_|\w+_SERVICE_(HOST$|PORT)|\w+_PORT_)")


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
SpecializationName = Annotated[str, Field(min_length=1, max_length=50)]
HighestLevel = Annotated[int, Field(strict=True, ge=1, le=2_147_483_647)]


class SettingsError(Exception):
    """A setting that cannot be used. Its text names the variable and what it must be."""


class _Environment(EnvSettingsSource):
    """The environment, without what Kubernetes writes into it for a service called levelsync-http or the like."""

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
    """A folder with a file for each secret, named like its variable."""

    database_pool_size: int = Field(10, ge=5, le=1000)
    """Connections that a process opens at most."""
    database_url: SecretStr = SecretStr("postgresql://postgres@localhost:5432/postgres")
    """The application's database, as cloud consoles and libpq write it: docs/connecting.md"""

    kafka_bootstrap_servers: str = "localhost:9092"
    """Brokers to ask first, separated by commas."""
    kafka_group_id: str = Field("levelsync", min_length=1)
    """The consumer group; one for each database."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to speak to the brokers: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How to sign in with SASL; unset, `PLAIN`."""
    kafka_sasl_username: str | None = None
    """The user; SASL needs it."""
    kafka_sasl_password: SecretStr | None = None
    """The user's password; SASL needs it."""
    kafka_ssl_cafile: Path | None = None
    """File with the certificates to trust, PEM; unset, the system's."""
    kafka_ssl_certfile: Path | None = None
    """File with the client's own certificate, PEM."""
    kafka_ssl_keyfile: Path | None = None
    """File with the key of that certificate, PEM."""
    kafka_ssl_key_password: SecretStr | None = None
    """The password of that key."""
    kafka_topic_partitions: int = Field(4, ge=1, le=10_000)
    """Partitions of a topic that levelsync creates."""
    kafka_topic_replication: int | None = Field(None, ge=1)
    """Copies of a topic that levelsync creates; unset, 3 or the number of brokers, whichever is less."""
    kafka_create_topics: bool = True
    """Whether to create missing topics; with `false` the service waits until somebody has created them."""

    batch_max_records: int = Field(5000, ge=1, le=100_000)
    """Records of one batch at most."""
    batch_max_bytes: ByteSize = Field(ByteSize(16_000_000), ge=1_000)
    """Bytes of one batch at most (one record is always read)."""
    record_max_bytes: ByteSize = Field(ByteSize(16_000_000), ge=100_000)
    """A record that holds more after decompression becomes a dead letter `too_large`; its first 64 KB are kept."""
    batch_max_wait: Duration = timedelta(milliseconds=200)
    """How long a poll waits for records."""
    apply_since: datetime | None = None
    """A time, UTC unless it has a zone: earlier events count as `superseded`."""
    license_defaults: dict[str, Any] = {}
    """JSON object: values for the application's own columns of a new `user_licenses` row."""
    progress_defaults: dict[str, Any] = {}
    """The same for a new `specialization_progress` row."""
    max_levels: dict[SpecializationName, HighestLevel] = {}
    """JSON object: the highest level of each specialization, such as `{"PLAYER": 8}`, where `specializations`
    has no `max_levels` column, no value in it, or no row. A value of the database wins.
    """
    dead_letter_retention: Duration = timedelta(days=90)
    """How long dead letters are kept; `0`: for ever."""

    http_host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` in a container."""
    http_port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; `0` takes a free one and prints it."""
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """A port for `/metrics` beside `/livez` and `/readyz`; without it they are on `HTTP_PORT`."""
    runbook_url: str | None = None
    """The address of your copy of docs/runbook.md: the base of the alerts' links, as `https://wiki.example/levelsync`."""

    jwt_secret: SecretStr | None = None
    """Checks tokens (HS256, HS384, HS512) and signs those of `levelsync token`; `serve` refuses fewer than 32
    bytes. The role `api` needs it, or the next.
    """
    jwt_jwks_url: str | None = None
    """Instead of a secret: where an identity provider publishes its keys; needs issuer and audience."""
    jwt_issuer: str | None = None
    """The `iss` that tokens must have."""
    jwt_audience: str | None = None
    """The `aud` that tokens must have."""
    jwt_roles_claim: str = "roles"
    """The claim that holds the roles: its name, a dotted path, or a JSON Pointer (begins with `/`)"""
    jwt_roles_from_users: bool | None = None
    """Whether a token without that claim gets its role from `users`; unless it is set, `true` with a secret and
    `false` with a JWKS URL.
    """

    reconcile_every: Duration = timedelta(hours=6)
    """How often the role `schedule` requests a run; `0` is never."""
    reconcile_execute: bool = False
    """Whether those runs heal."""
    reconcile_direction: Direction = "highest"
    """The direction of those runs."""
    reconcile_grace: Duration = timedelta(seconds=10)
    """Time from scan to confirmation; longer than your publishers take from their commit to Kafka."""
    reconcile_breaker_share: float = Field(0.05, ge=0, le=1)
    """A run may change this share of the pairs, or the next setting's number where that is more."""
    reconcile_breaker_pairs: int = Field(1000, ge=0)
    """Pairs that any run may change."""

    log_format: Literal["json", "console"] = "console"
    """`console`, or `json`: one object a line, on stderr."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment without Kubernetes' service links, then the folder of secrets, then the files."""
        folder = secrets_folder()
        secrets = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if folder else ()
        return init_settings, _Environment(settings_cls), *secrets, dotenv_settings

    @field_validator("apply_since")
    @classmethod
    def _apply_since_has_a_zone(cls, value: datetime | None) -> datetime | None:
        """A time without a zone is read as UTC: events are compared on UTC."""
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value

    @field_validator("max_levels")
    @classmethod
    def _each_specialization_once(cls, value: dict[str, int]) -> dict[str, int]:
        """Two spellings of one name could give it two highest levels."""
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
    """Give the folder that LEVELSYNC_SECRETS_DIR names; it holds one file for each setting, named like the variable.

    Raises:
        SettingsError: it is not a folder that can be read.
    """
    name = os.environ.get(SECRETS_DIR)
    if not name:
        return None
    if not Path(name).is_dir() or not os.access(name, os.R_OK | os.X_OK):
        raise SettingsError(f"{SECRETS_DIR}: {name} is not a folder that can be read")
    return Path(name)


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
    except OSError as error:
        raise SettingsError(f"{SECRETS_DIR}: {error.filename} cannot be read: {error.strerror}") from None


def unknown_names(environment: dict[str, str] | None = None) -> dict[str, str | None]:
    """``LEVELSYNC_`` variables and secrets that no setting reads, each with the nearest known name (or None)."""
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
