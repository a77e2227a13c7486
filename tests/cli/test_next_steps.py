"""What a run says to do next."""

from __future__ import annotations

from typing import Any

import pytest

from service.cli.reconcile import next_steps

NONE = dict.fromkeys(("mismatched", "missing_license", "missing_progress", "needs_decision", "failed"), 0)


def a_run(counts: dict[str, int], **changes: Any) -> dict[str, Any]:
    """A dry run that has ended."""
    report = {"run_id": "R", "status": "completed", "dry_run": True, "direction": "highest", "finished_at": "now"}
    return report | {"specialization": None, "user_id": None, "counts": NONE | counts} | changes


ISSUES = "Which pairs: levelsync runs R --issues"


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (a_run({}), []),
        (a_run({"mismatched": 1}), [ISSUES, "To heal them: levelsync reconcile --direction highest --execute"]),
        (
            a_run({"missing_license": 1}, specialization="PLAYER", user_id=5),
            [
                ISSUES,
                "To heal them: levelsync reconcile --direction highest --specialization PLAYER --user 5 --execute",
            ],
        ),
        (a_run({"mismatched": 1}, dry_run=False), [ISSUES]),
        (a_run({"failed": 1}, dry_run=False), [ISSUES]),
        (
            a_run({"needs_decision": 1}),
            [ISSUES, "A pair that needs a decision: levelsync sync USER --specialization X --level N"],
        ),
        (a_run({}, finished_at=None, status="running"), ["It goes on: levelsync runs R shows how far it is."]),
    ],
)
def test_a_run_names_the_command_that_goes_on_from_it(report: dict[str, Any], said: list[str]) -> None:
    """Nobody looks up at three what to type; where all is well nothing is said."""
    assert next_steps(report) == said
