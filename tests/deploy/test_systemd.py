"""deploy/systemd: systemd's own reading of the unit."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT

UNIT = ROOT / "deploy" / "systemd" / "levelsync.service"


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """Its commands are replaced by one that is there: the virtual environment is the operator's to make."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not on this machine")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"/opt/levelsync/bin/levelsync", "/bin/true", UNIT.read_text(encoding="utf-8")))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)  # noqa: S603
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


def test_the_service_has_time_to_drain_and_wrong_settings_are_not_tried_again() -> None:
    """It leaves within 10 seconds, and exit 2 is for a person."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    service = unit["Service"]
    assert int(service["TimeoutStopSec"]) > 10
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert service["ExecStart"].endswith("levelsync serve")
