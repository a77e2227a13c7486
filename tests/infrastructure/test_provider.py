"""How the suite chooses its servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import apache_kafka, containers, provider
from tests.support.provider import FORCE, WAYS, NoWay, Way, choose
from tests.support.repository import ROOT
from tests.support.servers import system_programs


def _way(number: int, unavailable: str = "") -> Way:
    def never(*_: object) -> None:
        raise AssertionError("choosing starts nothing")

    return Way(number, f"way {number}", lambda: unavailable, never)  # type: ignore[arg-type] # never called


def test_the_first_way_that_is_there_is_taken_and_the_others_say_why_not() -> None:
    def unasked() -> str:
        raise AssertionError("asked")

    later = Way(3, "way 3", unasked, _way(3).start)
    choice = choose({}, [_way(1, "no names"), _way(2), later])
    assert choice.way.number == 2
    assert choice.passed_over == ("1: no names",)
    assert str(choice) == "test provider 2 of 4: way 2"


def test_a_way_can_be_forced() -> None:
    assert choose({FORCE: "3"}, [_way(1), _way(2), _way(3)]).way.number == 3


@pytest.mark.parametrize(
    ("environment", "ways", "said"),
    [
        ({FORCE: "2"}, [_way(1), _way(2, "no engine"), _way(3)], "LEVELSYNC_TEST_PROVIDER=2, but 2: no engine"),
        ({FORCE: "9"}, [_way(1)], "there is no such way"),
        ({}, [_way(1, "a"), _way(2, "b")], "nothing to test against: 1: a; 2: b"),
    ],
)
def test_without_a_way_the_run_stops_with_the_reasons(environment: dict[str, str], ways: list[Way], said: str) -> None:
    with pytest.raises(NoWay, match=said):
        choose(environment, ways)


def test_the_ways_are_tried_in_the_documented_order() -> None:
    assert [(way.number, way.real_broker) for way in WAYS] == [(1, True), (2, True), (3, True), (4, False)]


def test_the_given_servers_need_both_names() -> None:
    assert provider._given_unavailable({provider.GIVEN_KAFKA: "k"}) == f"{provider.GIVEN_DATABASE} not set"
    assert provider._given_unavailable({provider.GIVEN_KAFKA: "k", provider.GIVEN_DATABASE: "d"}) == ""


def test_docker_without_an_engine_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'no.sock'}")
    monkeypatch.setattr(containers, "image_of", lambda service: f"{service}:1")
    assert containers.unavailable().startswith("Docker: ")


def test_images_are_read_from_the_compose_file(tmp_path: Path) -> None:
    compose = tmp_path / "docker-compose.yml"
    compose.write_text(
        "services:\n"
        "  # the broker\n"
        "  kafka:\n"
        "    environment:\n      image: not-this\n"
        '    image: "apache/kafka:4.3.0"  # pinned\n'
        "\n"
        "  postgres:\n"
        "    image: postgres:18.1-alpine\n"
        "  serve:\n    build: .\n"
        "volumes:\n  kafka:\n"
    )
    assert containers.image_of("kafka", compose) == "apache/kafka:4.3.0"
    assert containers.image_of("postgres", compose) == "postgres:18.1-alpine"
    for missing in ("serve", "redis"):
        with pytest.raises(LookupError, match=f"no image for the service {missing}"):
            containers.image_of(missing, compose)


def test_kafka_needs_java_17(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(apache_kafka, "_java_version", lambda: 11)
    assert apache_kafka.unavailable() == "java is version 11, Kafka needs 17"
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "not both on the PATH" in apache_kafka.unavailable()


def test_the_newest_postgresql_of_the_system_is_taken(tmp_path: Path) -> None:
    """Versions are compared as numbers: 9.6 is older than 15."""
    for version in ("9.6", "15", "18"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "postgres").touch()
    assert system_programs(tmp_path) == tmp_path / "18" / "bin"


@pytest.mark.soak
def test_a_run_on_the_embedded_broker_leaves_real_broker_tests_out_and_says_how_many() -> None:
    environment = os.environ | {FORCE: "4"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/reconcile_live/test_kept_clients.py"]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert "test provider 4 of 4" in run.stdout
    assert "tests left out because they need Apache Kafka: 2" in run.stdout
    assert "test_the_ends" not in run.stdout
