"""Every test that a document names exists."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.repository import ROOT

_NODE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
DOCUMENTS = ("docs/compatibility.md", "docs/edge-cases.md", "docs/troubleshooting.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_a_document_names_exists(document: str) -> None:
    named = _NODE.findall((ROOT / document).read_text(encoding="utf-8"))
    assert len(named) >= 10
    missing = [f"{path}::{name}" for path, name in named if name not in _tests_of(path)]
    assert not missing


def test_every_row_of_the_edge_cases_names_its_test() -> None:
    text = (ROOT / "docs/edge-cases.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| case", "|---"))]
    assert rows
    assert [row for row in rows if not _NODE.search(row)] == []


def test_every_entry_of_the_troubleshooting_names_its_test() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    _, *entries = re.split(r"^## ", text, flags=re.MULTILINE)
    assert len(entries) >= 8
    assert [entry.splitlines()[0] for entry in entries if not _NODE.search(entry)] == []


@cache
def _tests_of(path: str) -> set[str]:
    file = ROOT / path
    if not file.is_file():
        return set()
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_nothing_is_imported_from_a_test() -> None:
    """What tests share is in `tests/support` or in a conftest."""
    shared = re.compile(
        r"^\s*(?:from|import) (?:\S+\.test_\w+ import|tests\S* import test_|tests\S*\.test_)", re.MULTILINE
    )
    files = [file for folder in ("tests", "bench", "scripts") for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [str(file) for file in files if shared.search(file.read_text(encoding="utf-8"))] == []
