"""Links between the documents."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT, anchors, prose

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _documents() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 - fixed words


@pytest.mark.parametrize("document", _documents())
def test_every_relative_link_leads_somewhere(document: str) -> None:
    source = ROOT / document
    broken = [link for link in _LINK.findall(prose(source)) if "://" not in link and not _resolves(source, link)]
    assert not broken


def _resolves(source: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = (source.parent / path).resolve() if path else source
    return target.exists() and (not heading or heading in anchors(target))
