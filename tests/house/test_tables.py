"""Every table of the documents is rendered as one."""

from __future__ import annotations

import re
import subprocess

import markdown
import pytest

from tests.support.repository import ROOT

_CODE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_DELIMITERS = re.compile(r"\|[-:| ]+\|")


def _documents() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 - fixed words


def rows(text: str) -> tuple[int, int]:
    """Count the rows that are written and those that a reader sees in tables."""
    text = _CODE.sub("", text)
    written = [line for line in text.splitlines() if line.startswith("|") and not _DELIMITERS.fullmatch(line.strip())]
    return len(written), markdown.markdown(text, extensions=["tables"]).count("<tr>")


@pytest.mark.parametrize("document", _documents())
def test_every_row_of_a_table_is_rendered_as_one(document: str) -> None:
    """A blank line inside a table ends it, and the rest is shown as text."""
    written, rendered = rows((ROOT / document).read_text(encoding="utf-8"))
    assert rendered == written


def test_a_blank_line_inside_a_table_is_seen() -> None:
    whole = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"
    assert rows(whole) == (3, 3)
    assert rows(whole.replace("| 3", "\n| 3")) == (3, 2)
