"""The hooks of .pre-commit-config.yaml, and the form of a commit message."""

from __future__ import annotations

import re
import runpy

import pytest
import yaml

from tests.support.repository import ROOT

HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
faults = runpy.run_path(str(ROOT / "scripts" / "commit_message.py"))["faults"]


def test_hooks_are_local_and_run_what_the_environment_has() -> None:
    """No hook is fetched, and no tool has a second version."""
    assert [repository["repo"] for repository in HOOKS] == ["local"]
    for hook in HOOKS[0]["hooks"]:
        program, *words = hook["entry"].split()
        assert hook["language"] == "system"
        assert re.fullmatch(r"\.venv/bin/[\w-]+", program)
        assert (ROOT / program).exists(), hook["id"]
        assert [word for word in words if word.endswith(".py") and not (ROOT / word).exists()] == []


def test_hooks_run_what_make_lint_runs() -> None:
    """CI does not refuse a commit that the hooks accept."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = makefile.partition("\nlint: ")[2].partition("\n.PHONY")[0]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+)", lint)) - {"python"}
    assert tools <= {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in HOOKS[0]["hooks"]}


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("Skip records of other topics", []),
        ("Skip records of other topics\n\nThey are another consumer's.\n# On branch main\n", []),
        ("Skip records of other topics: they are another consumer's", ["colon"]),
        ("skip records of other topics.", ["capital"]),
        ("Skip records of other topics\nThey are another consumer's.", ["must be empty"]),
        ("Skip records of other topics, because they are those of another consumer in the group", ["85 characters"]),
        ("", ["capital"]),
    ],
)
def test_a_message_of_another_form_is_refused_with_a_sentence(message: str, found: list[str]) -> None:
    said = faults(message)
    assert len(said) == len(found)
    assert all(part in sentence for part, sentence in zip(found, said, strict=True))
