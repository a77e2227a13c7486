"""What a process loads, and what it does without."""

from __future__ import annotations

import subprocess
import sys


def test_a_process_without_the_api_loads_no_fastapi() -> None:
    """It would be a tenth of an applier's memory."""
    code = "import sys, service.process.runtime; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0  # noqa: S603 - our own code
