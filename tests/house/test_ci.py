"""The script that CI runs."""

from __future__ import annotations

import os
import re
import subprocess

from tests.house.compose import ROOT

SCRIPT = ROOT / ".ci" / "run"


def test_the_script_can_be_run() -> None:
    """Executable, and bash can read it."""
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)  # noqa: S603, S607 - our own script


def test_ci_runs_the_command_that_the_readme_names() -> None:
    """Green in CI means green for somebody who follows the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_commands = re.findall(r"^make \w+", readme, re.MULTILINE)[:2]
    assert first_commands == ["make demo", "make test"]
    run_by_ci = re.findall(r"^make \w+", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert run_by_ci == ["make test", "make lint", "make types", "make wheel"]


def test_ci_asks_for_a_real_broker_where_one_can_run() -> None:
    """With Java and Maven there is no excuse for testing offsets and groups on the embedded broker."""
    script = SCRIPT.read_text(encoding="utf-8")
    assert script.index("LEVELSYNC_TEST_REQUIRE_REAL_BROKER=1") < script.index("\nmake test")
