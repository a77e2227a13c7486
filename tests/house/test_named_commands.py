"""Every command that an operator's document names exists, with its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from service.cli import app
from tests.support.repository import ROOT

DOCUMENTS = (
    "docs/runbook.md",
    "docs/troubleshooting.md",
    "docs/edge-cases.md",
    "docs/dashboards.md",
    "docs/curriculum.md",
)
_SPAN = re.compile(r"`(levelsync [^`]+)`", re.DOTALL)
_LINE = re.compile(r"^(levelsync .+?)(?:  +#.*)?$", re.MULTILINE)
COMMAND: Any = typer.main.get_command(app)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = [*_SPAN.findall(text), *_LINE.findall(text)]
    assert named
    assert [one for one in named if list(_wrong(one.split()[1:]))] == []


def _wrong(words: list[str]) -> Iterator[str]:
    """Yield the words that are neither a command nor an option of it."""
    command = COMMAND
    for word in words:
        within = getattr(command, "commands", {})
        if word in within:
            command = within[word]
        elif within or (word.startswith("--") and word not in _options(command)):
            yield word


def _options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}
