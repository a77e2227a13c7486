"""Our services of docker-compose.yml, started with their commands and environment on the tests' servers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.local.postgres import _wheel_programs
from service.settings import PREFIX, Settings
from tests.support import repository
from tests.support.process import LevelsyncProcess, serve_environment
from tests.support.reader import docker_lines
from tests.support.servers import Kafka
from tests.support.waiting import eventually

SECRETS = {"POSTGRES_PASSWORD": "of-the-test", "LEVELSYNC_JWT_SECRET": "another-of-the-test-with-32-bytes"}
SERVICES = repository.services(SECRETS)
Make = Callable[..., LevelsyncProcess]
_DOCKER = """#!/bin/bash
set -eu
case "$*" in
    "compose up --detach --build --wait serve") ;;  # the test has started what Compose would start
    "compose exec postgres psql -U levelsync "*) shift 6; exec psql "$DATABASE_OF_THE_TEST" "$@" ;;
    "compose exec serve "*) shift 3; exec "$@" ;;
    *) echo "not a line that the test knows: docker $*" >&2; exit 2 ;;
esac
"""


async def test_migrate_and_serve_work_as_the_compose_file_starts_them(
    empty_database_url: str, kafka: Kafka, topics: list[str], levelsync_process: Make, tmp_path: Path
) -> None:
    """Then the commands of docs/docker.md work. A stand-in for `docker` runs what the containers would run."""
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
    environment = serve_environment(_settings("serve", reached)) | {"DATABASE_OF_THE_TEST": empty_database_url}
    up, insert, publish, select = docker_lines("docs/docker.md")
    for line in (up, insert, publish):
        await asyncio.to_thread(_typed, line, tmp_path, environment)
    await eventually(lambda: " PLAYER " in _typed(select, tmp_path, environment))
    grace = int(SERVICES["serve"]["stop_grace_period"].removesuffix("s"))
    assert await serve.terminate(grace) == 0


async def test_the_health_check_fails_while_the_service_is_not_ready(
    empty_database_url: str, kafka: Kafka, levelsync_process: Make
) -> None:
    """Nobody has migrated the database, so the service waits and reports it."""
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
    """A shell would swallow SIGTERM."""
    dockerfile = (repository.ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert '\nENTRYPOINT ["levelsync"]\nCMD ["serve"]\n' in dockerfile
    assert [SERVICES[name]["command"] for name in ("migrate", "serve")] == [["migrate"], ["serve"]]


def _typed(line: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a line of a document; return what it prints. `docker compose exec SERVICE` runs the rest here."""
    docker = folder / "docker"
    docker.write_text(_DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    path = os.pathsep.join((str(folder), str(Path(sys.executable).parent), str(_wheel_programs()), os.environ["PATH"]))
    run = subprocess.run(  # noqa: S603 - a line of our own document
        ["bash", "-c", line],  # noqa: S607 - as above
        env=environment | {"PATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, (line, run.stdout, run.stderr)
    return run.stdout


def _settings(name: str, reached: dict[str, str]) -> Settings:
    """Return the service's environment as settings, with the addresses of the tests' servers."""
    environment: dict[str, Any] = SERVICES[name]["environment"]
    values = {key: reached.get(key, value) for key, value in environment.items()}
    fields: dict[str, Any] = {key.removeprefix(PREFIX).lower(): value for key, value in values.items()}
    return Settings(_env_file=None, **fields)


def _health_check(name: str, process: LevelsyncProcess) -> int:
    """Run the service's health check as Docker does; return its exit code."""
    kind, program, *arguments = SERVICES[name]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    here = [argument.replace("http://127.0.0.1:8000", str(process.url)) for argument in arguments]
    assert here != arguments
    return subprocess.run([sys.executable, *here], capture_output=True, check=False).returncode  # noqa: S603 - our own
