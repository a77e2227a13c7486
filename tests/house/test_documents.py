"""The documents: links, tables, blocks of shell, the reference, and the commands, tests and settings that they name."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import markdown
import pytest
import typer

from service.cli import app
from service.settings import PREFIX, Settings, load_settings
from tests.support import reader
from tests.support.repository import ROOT, anchors, files, prose, read

DOCUMENTS = files("*.md")
LISTED: dict[str, dict[str, Any]] = {one["file"]: one for one in tomllib.loads(read("docs/blocks.toml"))["document"]}
OTHER_LANGUAGES = {"python", "sql", "mermaid"}
"""Tests of their own run these. Any other label, and none, counts as shell: a block cannot be relabelled away."""
COMMAND: Any = typer.main.get_command(app)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_DELIMITERS = re.compile(r"\|[-:| ]+\|")
_NODE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_SPAN = re.compile(r"`(levelsync [^`]+)`", re.DOTALL)
_LINE = re.compile(r"^(levelsync .+?)(?:  +#.*)?$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_somewhere(document: str) -> None:
    source = ROOT / document
    broken = [link for link in _LINK.findall(prose(source)) if "://" not in link and not _resolves(source, link)]
    assert not broken


def _resolves(source: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = (source.parent / path).resolve() if path else source
    return target.exists() and (not heading or heading in anchors(target))


@cache
def rendered(text: str) -> str:
    """Return the HTML of a document without its fenced blocks."""
    html: str = markdown.markdown(_FENCED.sub("", text), extensions=["tables"])
    return html


def rows(text: str) -> tuple[int, int]:
    """Count the rows that are written and those that a reader sees in tables."""
    lines = _FENCED.sub("", text).splitlines()
    written = [line for line in lines if line.startswith("|") and not _DELIMITERS.fullmatch(line.strip())]
    return len(written), rendered(text).count("<tr>")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_of_a_table_is_rendered_as_one(document: str) -> None:
    """A blank line inside a table ends it, and the rest is shown as text."""
    written, shown = rows(read(document))
    assert shown == written


def test_a_blank_line_inside_a_table_is_seen() -> None:
    whole = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"
    assert (rows(whole), rows(whole.replace("| 3", "\n| 3"))) == ((3, 3), (3, 2))


def shell_of(document: str) -> list[str]:
    """Return the document's blocks of shell, in their order."""
    return [block for language, block in reader.blocks(read(document)) if language not in OTHER_LANGUAGES]


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if shell_of(name) or name in LISTED])
def test_every_block_of_shell_is_listed(document: str) -> None:
    """In the document's order. For a test of the whole document, the number of blocks is enough."""
    assert document in LISTED, f"docs/blocks.toml has nothing of {document}"
    listed, blocks = LISTED[document]["blocks"], shell_of(document)
    if isinstance(listed, int):
        assert len(blocks) == listed
    else:
        begins = [one["begins"] for one in listed]
        assert [block[: len(begin)] for block, begin in zip(blocks, begins, strict=True)] == begins


@pytest.mark.parametrize("document", LISTED)
def test_every_listed_block_has_a_test_that_exists_or_a_reason(document: str) -> None:
    listed = LISTED[document]
    for one in [listed] if isinstance(listed["blocks"], int) else listed["blocks"]:
        if "test" not in one:
            assert len(one["reason"]) > 20, one
            continue
        path, _, name = one["test"].partition("::")
        assert re.search(rf"^(?:async )?def {name}\(", read(path), re.MULTILINE), one


def test_a_relabelled_block_still_counts() -> None:
    """Only three languages are not shell."""
    assert [language for language, _ in reader.blocks("```text\nlevelsync up\n```\n")] == ["text"]
    assert "text" not in OTHER_LANGUAGES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_block_is_written_by_indentation(document: str) -> None:
    """Such a block has no language, so the list would not see it."""
    assert "<pre>" not in rendered(read(document))


@pytest.mark.parametrize("name", ["runbook", "troubleshooting", "edge-cases", "dashboards", "curriculum"])
def test_every_command_that_a_document_names_exists(name: str) -> None:
    text = read(f"docs/{name}.md")
    named = [*_SPAN.findall(text), *_LINE.findall(text)]
    assert named
    assert [one for one in named if list(_wrong(one.split()[1:]))] == []


def _wrong(words: list[str]) -> Iterator[str]:
    """Yield the words that are neither a command nor an option of it."""
    command = COMMAND
    for word in words:
        within = getattr(command, "commands", {})
        options = {name for parameter in command.params for name in parameter.opts}
        if word in within:
            command = within[word]
        elif within or (word.startswith("--") and word not in options):
            yield word


@pytest.mark.parametrize("name", ["compatibility", "edge-cases", "troubleshooting"])
def test_every_test_that_a_document_names_exists(name: str) -> None:
    named = _NODE.findall(read(f"docs/{name}.md"))
    assert len(named) >= 10
    assert [f"{path}::{test}" for path, test in named if test not in _tests_of(path)] == []


def test_every_row_of_the_edge_cases_names_its_test() -> None:
    lines = read("docs/edge-cases.md").splitlines()
    cases = [line for line in lines if line.startswith("| ") and not line.startswith(("| case", "|---"))]
    assert cases
    assert [case for case in cases if not _NODE.search(case)] == []


def test_every_entry_of_the_troubleshooting_names_its_test() -> None:
    _, *entries = re.split(r"^## ", read("docs/troubleshooting.md"), flags=re.MULTILINE)
    assert len(entries) >= 8
    assert [entry.splitlines()[0] for entry in entries if not _NODE.search(entry)] == []


@cache
def _tests_of(path: str) -> set[str]:
    if not (ROOT / path).is_file():
        return set()
    nodes = ast.walk(ast.parse(read(path)))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_nothing_is_imported_from_a_test() -> None:
    imports = r"^\s*(?:from|import) (?:\S+\.test_\w+ import|tests\S* import test_|tests\S*\.test_)"
    sources = [file for folder in ("tests", "bench", "scripts") for file in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert [str(one) for one in sources if re.search(imports, one.read_text(encoding="utf-8"), re.MULTILINE)] == []


_SETTING_ROW = re.compile(rf"^\| `({PREFIX}\w+)` \| (.+?) \|", re.MULTILINE)
SETTINGS = dict(_SETTING_ROW.findall(read("docs/reference/settings.md")))
OF_SETTINGS = [name for name in DOCUMENTS if name in {"README.md", "SECURITY.md"} or name.startswith("docs/")]
_IGNORED = re.compile(rf"{PREFIX}(TEST_|PORTS\b|PORT_|SERVICE_)")


def test_the_reference_is_what_the_code_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run `make docs` after a change of a setting, a command, a metric, an event or an endpoint."""
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    code = runpy.run_path(str(ROOT / "scripts" / "reference.py"))["main"]()
    assert (code, capsys.readouterr().out) == (0, "")


def test_every_entry_of_the_reference_has_a_meaning() -> None:
    bare = []
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        rows = re.findall(r"^\| `.+$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert rows, page
        bare += [f"{page.name}: {row}" for row in rows if not row.rsplit(" | ", 1)[-1].strip("| ")]
    assert bare == []


@pytest.mark.parametrize("document", OF_SETTINGS)
def test_every_setting_that_a_document_names_exists(document: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", read(document)))
    unknown = {name for name in named if name.removeprefix(PREFIX).lower() not in Settings.model_fields}
    assert {name for name in unknown if not _IGNORED.match(name) and not name.endswith("_")} == set()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_in_the_reference_is_the_real_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings.model_fields[name.removeprefix(PREFIX).lower()].default
    if default is None:
        assert not SETTINGS[name].startswith("`")  # words, because no value means "not set"
        return
    for other in SETTINGS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.chdir(ROOT / "tests")  # has no .env
    monkeypatch.setenv(name, SETTINGS[name].strip("`"))
    assert getattr(load_settings(), name.removeprefix(PREFIX).lower()) == default
