"""Links between the documents."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.house.compose import ROOT

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _documents() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 - fixed words


@pytest.mark.parametrize("document", _documents())
def test_every_relative_link_leads_somewhere(document: str) -> None:
    """A reader never lands on nothing: files exist, and headings too."""
    source = ROOT / document
    broken = [link for link in _LINK.findall(_prose(source)) if "://" not in link and not _resolves(source, link)]
    assert not broken


def _resolves(source: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = (source.parent / path).resolve() if path else source
    return target.exists() and (not heading or heading in _anchors(target))


def _anchors(document: Path) -> set[str]:
    headings = _HEADING.findall(_prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _prose(document: Path) -> str:
    return _CODE.sub("", document.read_text(encoding="utf-8"))
