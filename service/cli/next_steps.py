"""What to do after a run has told what it found: beside the answer, for a reader only."""

from __future__ import annotations

from typing import Any

from service.cli import output


def say_next(report: dict[str, Any]) -> None:
    """Name the command that goes on from a run, on stderr."""
    for sentence in next_steps(report):
        output.remark(sentence)


def next_steps(report: dict[str, Any]) -> list[str]:
    """Give one sentence for each thing that is left to do; none where all is well."""
    from service.reconcile.values import healable

    counts, look = report["counts"], f"levelsync runs {report['run_id']}"
    differs = healable(counts)
    return [
        sentence
        for sentence, holds in (
            (f"It goes on: {look} shows how far it is.", report["finished_at"] is None),
            (f"Which pairs: {look} --issues", differs or counts["needs_decision"] or counts["failed"]),
            (
                "A pair that needs a decision: levelsync sync USER --specialization X --level N",
                counts["needs_decision"],
            ),
            (
                f"To heal them: levelsync reconcile --direction {report['direction']}{_narrowed(report)} --execute",
                differs and report["dry_run"] and report["status"] == "completed",
            ),
        )
        if holds
    ]


def _narrowed(report: dict[str, Any]) -> str:
    specialization, user = report["specialization"], report["user_id"]
    return (f" --specialization {specialization}" if specialization else "") + (f" --user {user}" if user else "")
