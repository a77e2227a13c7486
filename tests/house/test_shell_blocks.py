"""A test runs every block of shell in the documents, or docs/blocks.toml gives a reason."""

from __future__ import annotations

import re
import subprocess
import tomllib
from typing import Any

import markdown
import pytest

from tests.support import reader
from tests.support.repository import ROOT

LISTED: dict[str, dict[str, Any]] = {
    one["file"]: one for one in tomllib.loads((ROOT / "docs" / "blocks.toml").read_text(encoding="utf-8"))["document"]
}
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
OTHER_LANGUAGES = {"python", "sql", "mermaid"}
"""Tests of their own run these. Any other label, and none, counts as shell: a block cannot be relabelled away."""


def _documents() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 - fixed words


def shell_of(document: str) -> list[str]:
    """Return the document's blocks of shell, in their order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [block for language, block in reader.blocks(text) if language not in OTHER_LANGUAGES]


@pytest.mark.parametrize("document", [name for name in _documents() if shell_of(name) or name in LISTED])
def test_every_block_of_shell_is_listed(document: str) -> None:
    """In the document's order. For a test of the whole document, the number of blocks is enough."""
    assert document in LISTED, f"docs/blocks.toml has nothing of {document}"
    listed, blocks = LISTED[document]["blocks"], shell_of(document)
    if isinstance(listed, int):
        assert len(blocks) == listed
    else:
        assert [block[: len(one["begins"])] for block, one in zip(blocks, listed, strict=True)] == [
            one["begins"] for one in listed
        ]


@pytest.mark.parametrize("document", LISTED)
def test_every_listed_block_has_a_test_that_exists_or_a_reason(document: str) -> None:
    listed = LISTED[document]
    for one in [listed] if isinstance(listed["blocks"], int) else listed["blocks"]:
        if "test" not in one:
            assert len(one["reason"]) > 20, one
            continue
        path, _, name = one["test"].partition("::")
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), one


def test_a_relabelled_block_still_counts() -> None:
    """Only three languages are not shell."""
    assert [language for language, _ in reader.blocks("```text\nlevelsync up\n```\n")] == ["text"]
    assert "text" not in OTHER_LANGUAGES


@pytest.mark.parametrize("document", _documents())
def test_no_block_is_written_by_indentation(document: str) -> None:
    """Such a block has no language, so the list would not see it."""
    rendered = markdown.markdown(_FENCED.sub("", (ROOT / document).read_text(encoding="utf-8")), extensions=["tables"])
    assert "<pre>" not in rendered
