"""What developers and CI run: the script, the Makefile, the workflows, the hooks, the version and the changelog."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.repository import ROOT, read

SCRIPT = ROOT / ".ci" / "run"
MAKEFILE = read("Makefile")
TARGETS = re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE)
(VERSION,) = re.findall(r'^version = "(.+)"', read("pyproject.toml"), re.MULTILINE)
REPOSITORIES = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
faults = runpy.run_path(str(ROOT / "scripts" / "commit_message.py"))["faults"]


def test_the_script_can_be_run() -> None:
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)  # noqa: S603, S607 - our own script


def test_ci_runs_the_command_that_the_readme_names() -> None:
    assert re.findall(r"^make \w+", read("README.md"), re.MULTILINE)[:2] == ["make demo", "make test"]
    assert re.findall(r"^make (\w+)", read(".ci/run"), re.MULTILINE) == ["test", "demo", "lint", "types", "wheel"]


@pytest.mark.parametrize(
    ("tests_say", "tools", "complaints"),
    [
        ("test provider 2 of 4: a title", ("java", "mvn"), []),
        ("test provider 3 of 4: a title", ("java", "mvn"), []),
        ("test provider 4 of 4: a title", ("java", "mvn"), ["ran without Apache Kafka"]),
        ("test provider 4 of 4: a title", (), []),
        ("SKIPPED [1] tests/x/test_y.py:7: docker compose is not on this machine", (), []),
        ("SKIPPED [1] tests/x/test_y.py:7: no Chromium: apt-get install", (), ["allowed-skips"]),
    ],
)
def test_ci_fails_without_a_broker_that_can_run_or_after_a_skip_that_nobody_allowed(
    tmp_path: Path, tests_say: str, tools: tuple[str, ...], complaints: list[str]
) -> None:
    """Java and Maven suffice for Apache Kafka. A missing tool would otherwise leave its tests out unnoticed."""
    said = _run_with_stubs(tmp_path, tests_say, tools)
    assert ("=== make lint" in said.stdout) is not bool(complaints)
    assert [one for one in ("ran without Apache Kafka", "allowed-skips") if one in said.stderr] == complaints


def test_each_allowed_reason_is_one_that_a_test_gives() -> None:
    """An empty line would allow every reason, because grep finds it in every line."""
    allowed = read(".ci/allowed-skips").splitlines()
    skips = [line for path in ROOT.glob("tests/**/*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    given = "\n".join(line for line in skips if "skip(" in line or "reason=" in line)
    assert [reason for reason in allowed if len(reason) < 20 or f'"{reason}"' not in given] == []


def test_pytest_prints_the_reason_of_each_skip() -> None:
    assert "-ra" in tomllib.loads(read("pyproject.toml"))["tool"]["pytest"]["ini_options"]["addopts"].split()


def _run_with_stubs(folder: Path, tests_say: str, tools: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script, in a folder and with programs that do nothing."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "dirname", "grep", "mktemp", "rm", "sed", "tail", "tee"):
        (programs / name).symlink_to(str(shutil.which(name)))
    for name in ("make", "git", "python3", *tools):
        (programs / name).write_text(f"#!/bin/bash\necho '{tests_say}'\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "allowed-skips", folder / ".ci")
    copy = shutil.copy(SCRIPT, folder / ".ci" / "run")
    environment = {"PATH": str(programs), "TMPDIR": str(folder)}
    command = [str(programs / "bash"), str(copy)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - as above


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
    chart = read("deploy/helm/levelsync/Chart.yaml")
    assert re.findall(r"^(?:version|appVersion): (\S+)", chart, re.MULTILINE) == [VERSION, VERSION]
    assert re.findall(r"image: levelsync:(\S+)", read("docker-compose.yml")) == [VERSION]


def test_the_changelog_is_in_the_form_of_keep_a_changelog() -> None:
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (?:unreleased|\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert versions == sorted(versions, key=lambda one: tuple(map(int, one.split("."))), reverse=True)
    assert versions[0] == VERSION
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == len(versions)
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert "\n- " not in version.partition("\n### ")[0]


def test_hooks_are_local_and_run_what_the_environment_has() -> None:
    assert [repository["repo"] for repository in REPOSITORIES] == ["local"]
    for hook in REPOSITORIES[0]["hooks"]:
        program, *words = hook["entry"].split()
        assert hook["language"] == "system"
        assert re.fullmatch(r"\.venv/bin/[\w-]+", program)
        assert (ROOT / program).exists(), hook["id"]
        assert [word for word in words if word.endswith(".py") and not (ROOT / word).exists()] == []


def test_hooks_run_what_make_lint_runs() -> None:
    lint = MAKEFILE.partition("\nlint: ")[2].partition("\n.PHONY")[0]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+)", lint)) - {"python"}
    assert tools <= {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in REPOSITORIES[0]["hooks"]}


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("Skip records of other topics", []),
        ("Skip records of other topics\n\nThey are another consumer's.\n# On branch main\n", []),
        ("Skip records of other topics: they are another consumer's", ["colon"]),
        ("skip records of other topics.", ["capital"]),
        ("Skip records of other topics\nThey are another consumer's.", ["must be empty"]),
        ("Skip records of other topics, because they are those of another consumer in the group", ["85 characters"]),
        ("", ["capital"]),
    ],
)
def test_a_message_of_another_form_is_refused_with_a_sentence(message: str, found: list[str]) -> None:
    said = faults(message)
    assert len(said) == len(found)
    assert all(part in sentence for part, sentence in zip(found, said, strict=True))
