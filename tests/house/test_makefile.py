"""The Makefile, the workflows, the version and the changelog agree."""

from __future__ import annotations

import re
import subprocess

from tests.support.repository import ROOT

TARGETS = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_target_is_in_the_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    assert {"install", "demo", "test", "soak", "lint", "types", "up", "bench"} <= set(TARGETS)
    assert re.findall(r"^  make (\S+)", shown, re.MULTILINE) == TARGETS


def test_the_workflows_run_targets_that_there_are() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    run = [name for path in workflows for name in re.findall(r"run: make (\S+)", path.read_text(encoding="utf-8"))]
    assert {"test", "lint", "types", "audit", "release", "image"} <= set(run) <= set(TARGETS)


def test_the_version_is_the_same_wherever_a_checkout_writes_it() -> None:
    """pyproject.toml is its place. Users of a checkout read it in the chart and the compose file."""
    (project,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    chart = (ROOT / "deploy" / "helm" / "levelsync" / "Chart.yaml").read_text(encoding="utf-8")
    compose_file = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert re.findall(r"^(?:version|appVersion): (\S+)", chart, re.MULTILINE) == [project, project]
    assert re.findall(r"image: levelsync:(\S+)", compose_file) == [project]


def test_the_changelog_is_in_the_form_of_keep_a_changelog() -> None:
    """Versions are newest first, and each line is below one of six kinds of change."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (project,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (?:unreleased|\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert versions == sorted(versions, key=lambda one: tuple(map(int, one.split("."))), reverse=True)
    assert versions[0] == project
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == len(versions)
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert "\n- " not in version.partition("\n### ")[0]
