"""Running the command in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from service.settings import PREFIX, Settings
from tests.infrastructure.levelsync_process import serve_environment

Result = subprocess.CompletedProcess[str]


def levelsync(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str | None = None
) -> Result:
    """Run `levelsync` to its end; nothing of the caller's environment reaches it but what `env` says."""
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(  # noqa: S603 - our own command
        command, env=clean(env), cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def clean(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give an environment without any of the caller's own settings."""
    here = Path(__file__).parents[2]
    return {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONPATH": str(here)} | dict(env or {})


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """Give the settings of a test as a command's environment, with `more` of them by their names."""
    given = {name: value for name, value in serve_environment(settings).items() if name.startswith(PREFIX)}
    return given | {f"{PREFIX}{name}": value for name, value in more.items()}
