"""What `levelsync doctor` finds, one line each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What came of one check."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    WARN = "WARN"
    """No fault by itself: somebody should look at it."""
    SKIP = "SKIP"
    """It depends on something that failed, or that is not there."""


@dataclass(frozen=True)
class Finding:
    """One check: what was found and, where that is not well, what to do."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""
    unreachable: bool = False
    """Whether a component did not answer: exit code 3."""


def passed(check: str, detail: str) -> Finding:
    """Give the finding of a check that is well."""
    return Finding(check, Verdict.PASS, detail)


def failed(check: str, detail: str, advice: str = "") -> Finding:
    """Give the finding of a check that is not well."""
    return Finding(check, Verdict.FAIL, detail, advice)


def unreachable(check: str, sentence: str) -> Finding:
    """Give the finding about a component that does not answer."""
    return Finding(check, Verdict.FAIL, sentence, unreachable=True)


def skipped(check: str, why: str) -> Finding:
    """Give the finding of a check that could not be made."""
    return Finding(check, Verdict.SKIP, why)
