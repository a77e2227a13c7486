"""The script that CI runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.repository import ROOT

SCRIPT = ROOT / ".ci" / "run"


def test_the_script_can_be_run() -> None:
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)  # noqa: S603, S607 - our own script


def test_ci_runs_the_command_that_the_readme_names() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_commands = re.findall(r"^make \w+", readme, re.MULTILINE)[:2]
    assert first_commands == ["make demo", "make test"]
    run_by_ci = re.findall(r"^make \w+", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert run_by_ci == ["make test", "make lint", "make types", "make wheel"]


@pytest.mark.parametrize(
    ("provider", "tools", "goes_on"),
    [(2, ("java", "mvn"), True), (3, ("java", "mvn"), True), (4, ("java", "mvn"), False), (4, (), True)],
)
def test_ci_fails_without_a_real_broker_where_one_can_run(
    tmp_path: Path, provider: int, tools: tuple[str, ...], goes_on: bool
) -> None:
    """Java and Maven suffice for Apache Kafka, so the embedded broker is not enough there."""
    said = _run_with_stubs(tmp_path, f"test provider {provider} of 4: a title", tools)
    assert ("=== make lint" in said.stdout) is goes_on
    assert ("ran without Apache Kafka" in said.stderr) is not goes_on


@pytest.mark.parametrize(
    ("reason", "goes_on"), [("docker compose is not on this machine", True), ("no Chromium: apt-get install", False)]
)
def test_ci_fails_where_a_test_is_skipped_for_a_reason_that_nobody_allowed(
    tmp_path: Path, reason: str, goes_on: bool
) -> None:
    """A missing tool would otherwise leave its tests out unnoticed."""
    said = _run_with_stubs(tmp_path, f"SKIPPED [1] tests/x/test_y.py:7: {reason}", ())
    assert ("=== make lint" in said.stdout) is goes_on
    assert ("allowed-skips" in said.stderr) is not goes_on


def test_each_allowed_reason_is_one_that_a_test_gives() -> None:
    """An empty line would allow every reason, because grep finds it in every line."""
    allowed = (ROOT / ".ci" / "allowed-skips").read_text(encoding="utf-8").splitlines()
    skips = [line for path in ROOT.glob("tests/**/*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    given = "\n".join(line for line in skips if "skip(" in line or "reason=" in line)
    assert [reason for reason in allowed if len(reason) < 20 or f'"{reason}"' not in given] == []


def test_pytest_prints_the_reason_of_each_skip() -> None:
    """The script reads the reasons from the output of `make test`."""
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "-ra" in configured["tool"]["pytest"]["ini_options"]["addopts"].split()


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
