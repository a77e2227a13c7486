"""Kafka and PostgreSQL as containers of the images in docker-compose.yml."""

from __future__ import annotations

import gc
import uuid
import warnings
from base64 import urlsafe_b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from tests.support.apache_kafka import ONE_NODE
from tests.support.servers import POSTGRES_SETTINGS, Kafka, Postgres

COMPOSE_FILE = Path(__file__).parents[2] / "docker-compose.yml"
_ENGINE_SECONDS = 3
_PULL_SECONDS = 600
_START_SECONDS = 120


def unavailable() -> str:
    """Return why this way cannot be taken, or ''. Pulls the images where they are missing."""
    with warnings.catch_warnings():
        # Without an engine the Docker library leaves a socket open, and a later test would fail for it.
        warnings.simplefilter("ignore", ResourceWarning)
        reason = _reason()
        gc.collect()
    return reason


def _reason() -> str:
    try:
        images = [image_of("kafka"), image_of("postgres")]
        _client(_ENGINE_SECONDS).ping()
        for image in [*images, *_reaper()]:
            _have(image)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with Docker, the next way is tried
        return f"Docker: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return ""


def image_of(service: str, compose_file: Path = COMPOSE_FILE) -> str:
    """Return the image of a service in docker-compose.yml.

    Raises:
        LookupError: there is no such service, or it has no image.
    """
    described = yaml.safe_load(compose_file.read_text(encoding="utf-8"))["services"].get(service, {})
    if "image" not in described:
        raise LookupError(f"{compose_file.name} names no image for the service {service}")
    return str(described["image"])


def start_kafka(stack: ExitStack) -> Kafka:
    """Start a broker that stops with `stack`."""
    from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415 - slow, and needed with Docker only

    class ApacheKafkaContainer(KafkaContainer):
        """testcontainers' own class starts Confluent's image. This one uses apache/kafka's start script."""

        def __init__(self) -> None:
            super().__init__(image_of("kafka"))
            self.kraft_enabled = True
            self.with_cluster_id(urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
            for name, value in ONE_NODE.items():
                self.with_env(f"KAFKA_{name.upper().replace('.', '_')}", str(value))

        def tc_start(self) -> None:
            listeners = f"PLAINTEXT://{self.get_bootstrap_server()},BROKER://localhost:9092"
            script = f"export KAFKA_ADVERTISED_LISTENERS={listeners}\nexec /etc/kafka/docker/run\n"
            self.create_file(script.encode(), self.TC_START_SCRIPT)

    container = ApacheKafkaContainer()
    stack.callback(container.stop)
    container.start(timeout=_START_SECONDS)
    return Kafka(container.get_bootstrap_server(), real=True)


def start_postgres(stack: ExitStack) -> Postgres:
    """Start a PostgreSQL that stops with `stack`."""
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - see `start_kafka`

    container = PostgresContainer(image_of("postgres"), username="postgres", dbname="postgres", driver=None)
    container.with_command(["postgres", *(f"--{name}={value}" for name, value in POSTGRES_SETTINGS.items())])
    stack.callback(container.stop)
    container.start()
    return Postgres(container.get_connection_url())


def _have(image: str) -> None:
    images = _client(_PULL_SECONDS).images
    if not images.list(name=image):
        images.pull(image)


def _reaper() -> list[str]:
    """Return the image with which testcontainers removes containers after a killed run."""
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415 - see `start_kafka`

    return [] if testcontainers_config.ryuk_disabled else [testcontainers_config.ryuk_image]


def _client(timeout: float) -> Any:
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 - see `start_kafka`

    return DockerClient(timeout=timeout).client
