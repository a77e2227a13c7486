"""Fixed names: kinds of drift and directions; how names of specializations compare, and how text is shown.

Names: the letters a to z count as A to Z, and no other letter is folded.

PostgreSQL's `upper` follows the database's locale and Python's follows Unicode: in a database with the locale C the
two disagree about `játékos`, and a Turkish one gives `i` another capital. These 26 letters are the same everywhere.
"""

from __future__ import annotations

import re
import string
from enum import StrEnum
from typing import Literal, get_args

Direction = Literal["progress_to_license", "license_to_progress", "highest"]
"""Which row a sync or heal believes; the same as the contract's, without its libraries."""
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


class DriftKind(StrEnum):
    """How the rows of a pair disagree: a metric's label, `issue_type`, a count of a report."""

    MISMATCHED = "mismatched"
    MISSING_LICENSE = "missing_license"
    MISSING_PROGRESS = "missing_progress"
    OUT_OF_RANGE = "out_of_range"
    NULL_LEVEL = "null_level"
    UNKNOWN_SPECIALIZATION = "unknown_specialization"
    WRONG_CASE = "wrong_case"
    DUPLICATE = "duplicate"


HEALABLE = (DriftKind.MISMATCHED, DriftKind.MISSING_LICENSE, DriftKind.MISSING_PROGRESS)
"""Kinds that a write can repair. All others are reported as `needs_decision` and never healed."""


IssueStatus = Literal["confirmed", "unconfirmed", "changed_meanwhile", "healed", "failed", "needs_decision"]
"""What a run did about a pair that it found (`levelsync.drift_issues.status`)."""
ISSUE_STATUSES: tuple[IssueStatus, ...] = get_args(IssueStatus)


# What a terminal or a page obeys instead of showing: control characters (C0 but for the line's end and the tab, DEL,
# C1) and those that turn the direction of writing. A lone surrogate has no UTF-8. Publishers and tables can hold all.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
CALCULATED = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula; some take the full-width signs too."""
_A_TO_Z = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


def fold(name: str) -> str:
    """Return the form in which two spellings of one name are equal."""
    return name.translate(_A_TO_Z)


def folded(expression: str) -> str:
    """Return the SQL of the same: `expression` is SQL text of any type that casts to text, an enum too."""
    return f'upper(CAST({expression} AS text) COLLATE "C")'


def shown(text: str) -> str:
    """Escape what a terminal would obey, as JSON escapes it, so that JSON stays JSON."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """Escape line ends too: somebody else's text that stands on one line forges no other line."""
    return shown(text).replace("\n", "\\n")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: "1 pair", "2 pairs", or `many` where an s does not make the plural."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
