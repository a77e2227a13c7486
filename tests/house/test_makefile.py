"""`make help` tells the truth."""

from __future__ import annotations

import re
import subprocess

from tests.house.compose import ROOT

TARGETS = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_target_is_in_the_help() -> None:
    """A target that the help does not name is one that nobody finds."""
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    assert {"install", "demo", "test", "soak", "lint", "types", "up", "bench"} <= set(TARGETS)
    assert re.findall(r"^  make (\S+)", shown, re.MULTILINE) == TARGETS
