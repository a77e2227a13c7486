"""The contract works with the oldest pydantic that it allows, and with the newest."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.repository import ROOT, read

FLOOR = "2.5"
_TESTS = [f"tests/events/test_{name}.py" for name in ("reading", "writing", "schemas")]


def test_the_package_asks_for_no_more_than_the_oldest_that_is_tested() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["dependencies"] == [f"pydantic>={FLOOR},<3"]


@pytest.mark.soak
@pytest.mark.parametrize("requirement", [f"pydantic=={FLOOR}.0", "pydantic<3"], ids=["oldest", "newest"])
def test_the_contract_holds_with_another_pydantic(requirement: str, tmp_path: Path) -> None:
    """The tests of this folder pass in a process that finds it before the installed one."""
    _install(requirement, tmp_path)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # some of them need the installed pydantic
    }
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-c", os.devnull, "--rootdir", str(ROOT), *_TESTS]
    run = subprocess.run(  # noqa: S603 - fixed words
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]


def _install(requirement: str, folder: Path) -> None:
    """Install it into an empty folder. Skip the test where no package index can be reached."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
    run = subprocess.run([*pip, requirement], capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    if run.returncode:
        pytest.skip(f"{requirement} cannot be installed here: {run.stderr.strip()[-300:]}")
