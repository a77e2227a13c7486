"""reladiff from PyPI, in a separate venv. It compares the two tables by hashes of key ranges."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from service.settings import Settings

VERSION = "0.6.0"
_VENV = Path(__file__).parents[2] / ".cache" / f"reladiff-{VERSION}"
_SCRIPT = Path(__file__).with_name("reladiff_process.py")


def seconds(settings: Settings, drifted: int) -> float:
    """Return the seconds of one comparison.

    Raises:
        AssertionError: it did not report exactly both rows of each pair that differs.
    """
    python = _installed()
    began = time.perf_counter()
    command = [str(python), "-P", str(_SCRIPT), settings.database_url.get_secret_value()]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert said["rows"] == 2 * drifted, said  # noqa: S101 - the figures of a wrong comparison do not count
    return round(time.perf_counter() - began, 3)


def _installed() -> Path:
    python = _VENV / "bin" / "python"
    if not (_VENV / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", f"reladiff[postgresql]=={VERSION}"], check=True)
        (_VENV / "installed").touch()
    return python
