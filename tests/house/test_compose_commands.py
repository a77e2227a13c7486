"""Our services of docker-compose.yml, started by their commands with their environment, on the tests' servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from service.settings import PREFIX, Settings
from tests.support import repository
from tests.support.process import LevelsyncProcess
from tests.support.servers import Kafka

SECRETS = {"POSTGRES_PASSWORD": "of-the-test", "LEVELSYNC_JWT_SECRET": "another-of-the-test-with-32-bytes"}
SERVICES = repository.services(SECRETS)
Make = Callable[..., LevelsyncProcess]


async def test_migrate_and_serve_work_as_the_compose_file_starts_them(
    empty_database_url: str, kafka: Kafka, topics: list[str], levelsync_process: Make
) -> None:
    """An empty PostgreSQL and a Kafka are enough: migrate ends with 0, serve gets ready, and stops in time."""
    reached = {
        "LEVELSYNC_DATABASE_URL": empty_database_url,
        "LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "LEVELSYNC_HTTP_HOST": "127.0.0.1",
        "LEVELSYNC_HTTP_PORT": "0",
    }
    assert topics

    migrate = levelsync_process(_settings("migrate", reached), SERVICES["migrate"]["command"])
    await migrate.start(ready=False)
    assert await migrate.wait(60) == 0, migrate.output

    serve = levelsync_process(_settings("serve", reached), SERVICES["serve"]["command"])
    await serve.start()
    assert _health_check("serve", serve) == 0
    grace = int(SERVICES["serve"]["stop_grace_period"].removesuffix("s"))
    assert await serve.terminate(grace) == 0


async def test_the_health_check_fails_while_the_service_is_not_ready(
    empty_database_url: str, kafka: Kafka, levelsync_process: Make, eventually: Callable[..., Any]
) -> None:
    """A database that nobody has migrated: the service waits, and says so to whoever asks."""
    reached = {
        "LEVELSYNC_DATABASE_URL": empty_database_url,
        "LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "LEVELSYNC_HTTP_HOST": "127.0.0.1",
        "LEVELSYNC_HTTP_PORT": "0",
    }
    serve = levelsync_process(_settings("serve", reached), SERVICES["serve"]["command"])
    await serve.start(ready=False)

    async def names_the_migrations() -> bool:
        status, body = await serve.get("/readyz") if serve.url else (0, "{}")
        return status == 503 and "levelsync migrate" in str(json.loads(body)["problems"].get("postgresql"))

    await eventually(names_the_migrations)
    assert _health_check("serve", serve) != 0


def test_the_image_runs_the_command_that_the_tests_run() -> None:
    """A service's `command` is the arguments of `levelsync`, without a shell that would swallow SIGTERM."""
    dockerfile = (repository.ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert '\nENTRYPOINT ["levelsync"]\nCMD ["serve"]\n' in dockerfile
    assert [SERVICES[name]["command"] for name in ("migrate", "serve")] == [["migrate"], ["serve"]]


def _settings(name: str, reached: dict[str, str]) -> Settings:
    """Give the service's environment, exactly its names, with the addresses of the tests' servers."""
    environment: dict[str, Any] = SERVICES[name]["environment"]
    values = {key: reached.get(key, value) for key, value in environment.items()}
    fields: dict[str, Any] = {key.removeprefix(PREFIX).lower(): value for key, value in values.items()}
    return Settings(_env_file=None, **fields)


def _health_check(name: str, process: LevelsyncProcess) -> int:
    """Run the service's health check as Docker does; its exit code."""
    kind, program, *arguments = SERVICES[name]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    here = [argument.replace("http://127.0.0.1:8000", str(process.url)) for argument in arguments]
    assert here != arguments
    return subprocess.run([sys.executable, *here], capture_output=True, check=False).returncode  # noqa: S603 - our own
