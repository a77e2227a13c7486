"""Check the form of a commit's message (CONTRIBUTING.md); exit 1 with a sentence for each fault. A hook runs it."""

from __future__ import annotations

import sys
from pathlib import Path

LONGEST_SUBJECT = 72


def faults(message: str) -> list[str]:
    """Return a sentence for each fault; lines that begin with `#` are git's own."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject, *rest = lines or [""]
    found = []
    if len(subject) > LONGEST_SUBJECT:
        found.append(f"the subject has {len(subject)} characters, {LONGEST_SUBJECT} are allowed")
    if not subject[:1].isupper() or subject.endswith("."):
        found.append("the subject begins with a capital letter and has no full stop: Skip records of other topics")
    if ": " in subject:
        found.append("the subject has a colon: the reason belongs into the body")
    if rest and rest[0].strip():
        found.append("the line after the subject must be empty")
    return found


if __name__ == "__main__":
    problems = faults(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for problem in problems:
        print(f"commit message: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)
