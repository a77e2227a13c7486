"""`levelsync reconcile --execute` at a terminal asks before levels fall."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import typer
from typer.testing import CliRunner

from events import ReconcileRequested
from service.cli import app, reconcile
from service.reconcile.values import RunReport
from service.settings import Settings
from tests.support.runs import ended

DRY = ("dry run", None)


class Answers:
    """A worker that answers every request at once."""

    def __init__(self, lowered: int) -> None:
        self.lowered = lowered
        self.asked: list[tuple[str, int | None]] = []
        self.questions: list[str] = []

    async def ask(self, _settings: Settings, request: ReconcileRequested, *, wait: bool) -> RunReport:
        assert wait
        self.asked.append(("dry run" if request.dry_run else "heal", request.max_lowered))
        counts = {"mismatched": 3, "lowered": self.lowered}
        return ended(counts, run_id=UUID(request.id), dry_run=request.dry_run, direction=request.direction)


@dataclass(frozen=True)
class Case:
    """What is given and what is expected."""

    arguments: tuple[str, ...]
    lowered: int
    asked: list[tuple[str, int | None]]
    questions: list[str] = field(default_factory=list)
    at_a_terminal: bool = True
    answer: bool = False


CASES = {
    "a dry run": Case((), 2, [DRY]),
    "agreed": Case(("--execute",), 2, [DRY, ("heal", 2)], ["Heal, and lower 2 levels?"], answer=True),
    "declined": Case(("--execute",), 1, [DRY], ["Heal, and lower 1 level?"]),
    "none fall": Case(("--execute",), 0, [DRY, ("heal", 0)]),
    "--yes": Case(("--execute", "--yes"), 2, [("heal", None)]),
    "no terminal": Case(("--execute",), 2, [("heal", None)], at_a_terminal=False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_heal_follows_its_dry_run_within_what_was_agreed(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    answers = Answers(case.lowered)

    def confirm(question: str, **_: Any) -> bool:
        answers.questions.append(question)
        return case.answer

    monkeypatch.setattr(reconcile, "ask", answers.ask)
    monkeypatch.setattr("service.cli.context.has_terminal", lambda: case.at_a_terminal)
    monkeypatch.setattr("service.cli.reconcile.has_terminal", lambda: case.at_a_terminal)
    monkeypatch.setattr("service.cli.context.settings", Settings.model_construct)
    monkeypatch.setattr(typer, "confirm", confirm)
    done = CliRunner().invoke(app, ["reconcile", *case.arguments])
    assert (answers.asked, answers.questions) == (case.asked, case.questions)
    assert done.exit_code == (0 if "heal" in dict(case.asked) else 1)
