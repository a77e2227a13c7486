"""How the log prints text that others wrote."""

from __future__ import annotations

import subprocess
import sys

LOGS = r"""
import logging, structlog
from service.telemetry.logs import configure_logs
from service.settings import Settings
configure_logs(Settings(_env_file=None, log_format="console"))
hostile = "\x1b]0;owned\x07\x1b[2J\nforged\u202e"
structlog.get_logger("service").info("request", path=hostile.replace("\n", ""), first=[hostile])
logging.getLogger("a.library").warning("it says %s", hostile)
def fail():
    password = "ses" + "ame"
    raise ValueError(hostile)
try:
    fail()
except ValueError:
    structlog.get_logger("service").exception("failed")
"""
SHOWN = r"\u001b]0;owned\u0007\u001b[2J\nforged\u202e"


def test_no_text_steers_the_terminal_forges_a_line_or_shows_a_variable() -> None:
    """The text is a path, a list from publishers, another library's line, and an exception.

    A variable of a traceback may contain a token or a password.
    """
    run = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603 - our own code
    lines = run.stderr.splitlines()
    assert r"path=\u001b]0;owned\u0007\u001b[2Jforged\u202e" in lines[0]
    assert f"it says {SHOWN}" in lines[1]
    assert lines[-2:] == [r"ValueError: \u001b]0;owned\u0007\u001b[2J", r"forged\u202e"]
    assert "sesame" not in run.stderr
    assert not set(run.stderr) & set("\x1b\x07\u202e")
