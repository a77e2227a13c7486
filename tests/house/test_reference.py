"""docs/reference agrees with the code, and the documents name only what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import PREFIX, Settings, load_settings
from tests.support.repository import ROOT, read

_SETTING_ROW = re.compile(rf"^\| `({PREFIX}\w+)` \| (.+?) \|", re.MULTILINE)
SETTINGS = dict(_SETTING_ROW.findall(read("docs/reference/settings.md")))
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
_IGNORED = re.compile(rf"{PREFIX}(TEST_|PORTS\b|PORT_|SERVICE_)")


def test_the_reference_is_what_the_code_says() -> None:
    """Run `make docs` after a change of a setting, a command, a metric, an event or an endpoint."""
    command = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_entry_of_the_reference_has_a_meaning() -> None:
    bare = []
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        rows = re.findall(r"^\| `.+$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert rows, page
        bare += [f"{page.name}: {row}" for row in rows if not row.rsplit(" | ", 1)[-1].strip("| ")]
    assert bare == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_a_document_names_exists(document: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", document.read_text(encoding="utf-8")))
    unknown = {name for name in named if name.removeprefix(PREFIX).lower() not in Settings.model_fields}
    assert {name for name in unknown if not _IGNORED.match(name) and not name.endswith("_")} == set()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_in_the_reference_is_the_real_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings.model_fields[name.removeprefix(PREFIX).lower()].default
    if default is None:
        assert not SETTINGS[name].startswith("`")  # words: there is no value that stands for "not set"
        return
    for other in SETTINGS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.chdir(ROOT / "tests")  # where there is no .env
    monkeypatch.setenv(name, SETTINGS[name].strip("`"))
    assert getattr(load_settings(), name.removeprefix(PREFIX).lower()) == default
