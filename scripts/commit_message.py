"""Check the form of a commit message (CONTRIBUTING.md). A hook runs it; exit code 1 with a sentence for each fault."""

from __future__ import annotations

import sys
from pathlib import Path

LONGEST_SUBJECT = 72


def faults(message: str) -> list[str]:
    """Return a sentence for each fault. Lines that begin with `#` are git's comments."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject, *rest = lines or [""]
    found = []
    if len(subject) > LONGEST_SUBJECT:
        found.append(f"the subject has {len(subject)} characters, {LONGEST_SUBJECT} are allowed")
    if not subject[:1].isupper() or subject.endswith("."):
        found.append("the subject must begin with a capital letter and have no full stop: Skip records of other topics")
    if ": " in subject:
        found.append("the subject has a colon: write the reason into the body")
    if rest and rest[0].strip():
        found.append("the line after the subject must be empty")
    return found


if __name__ == "__main__":
    problems = faults(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for problem in problems:
        print(f"commit message: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)
