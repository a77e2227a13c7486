"""Every law that a file cites is in docs/laws.md."""

from __future__ import annotations

import re
import subprocess

from tests.support.repository import ROOT

LAWS = {
    int(n) for n in re.findall(r"^## Law (\d+):", (ROOT / "docs" / "laws.md").read_text(encoding="utf-8"), re.MULTILINE)
}
_CITED = re.compile(r"\blaws? (\d+(?:(?:, | and | to |, and )\d+)*)", re.IGNORECASE)


def test_every_law_that_a_file_cites_exists() -> None:
    command = ["git", "ls-files", "*.py", "*.md", "*.sql", "*.yml", "*.toml"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
    cited = {
        (path, int(number))
        for path in files
        for match in _CITED.finditer((ROOT / path).read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", match[1])
    }
    assert len(cited) > 100
    assert {(path, number) for path, number in cited if number not in LAWS} == set()


def test_there_are_nine_laws() -> None:
    assert set(range(1, 10)) == LAWS
