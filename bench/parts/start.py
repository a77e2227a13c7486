"""Start: how long the command `levelsync --help` takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.sizes import Sizes
from bench.table import Row

_LEVELSYNC = Path(sys.executable).with_name("levelsync")
_MOST = 0.3


async def run(sizes: Sizes) -> list[Row]:
    """Run the command once to fill the disk cache, then measure each round."""
    seconds = [_help() for _ in range(sizes.rounds + 1)][1:]
    return [Row("`levelsync --help`", tuple(seconds), "s", at_most=_MOST)]


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([str(_LEVELSYNC), "--help"], check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - began, 3)
