"""Fixed names (kinds of drift, directions), the comparison of specialization names, and the display of text.

Names of specializations are compared with the letters a to z in upper case. No other letter is folded. PostgreSQL's
`upper` follows the database's locale and Python's follows Unicode, so that they disagree about `játékos` in the locale
C and about `i` in a Turkish locale. The 26 letters are the same everywhere.
"""

from __future__ import annotations

import re
import string
from enum import StrEnum
from typing import Literal, get_args

Direction = Literal["progress_to_license", "license_to_progress", "highest"]
"""Which row a sync or heal believes. Equal to `events.Direction`, but importable without pydantic."""
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


class DriftKind(StrEnum):
    """The kinds of drift. They are metric labels, values of `issue_type`, and keys of a report's counts."""

    MISMATCHED = "mismatched"
    MISSING_LICENSE = "missing_license"
    MISSING_PROGRESS = "missing_progress"
    OUT_OF_RANGE = "out_of_range"
    NULL_LEVEL = "null_level"
    UNKNOWN_SPECIALIZATION = "unknown_specialization"
    WRONG_CASE = "wrong_case"
    DUPLICATE = "duplicate"


HEALABLE = (DriftKind.MISMATCHED, DriftKind.MISSING_LICENSE, DriftKind.MISSING_PROGRESS)
"""The kinds that a heal can repair. All others are reported as `needs_decision` and never healed."""


IssueStatus = Literal["confirmed", "unconfirmed", "changed_meanwhile", "healed", "failed", "needs_decision"]
"""What a run did about a pair that it found (`levelsync.drift_issues.status`)."""
ISSUE_STATUSES: tuple[IssueStatus, ...] = get_args(IssueStatus)
LetterState = Literal["open", "replaying", "resolved", "all"]
"""States of dead letters in a list.

`replaying` letters are open, and were sent less than a minute ago. `resolved` letters were replayed or discarded.
"""
LETTER_STATES: tuple[LetterState, ...] = get_args(LetterState)


# Characters that a terminal or a page interprets instead of showing: control characters (C0 except line feed and tab,
# DEL, C1) and those that change the direction of text. UTF-8 cannot encode a lone surrogate. Texts from publishers
# and tables can contain any of them.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters with which a formula begins in spreadsheets. Some spreadsheets accept the full-width signs too."""
_A_TO_Z = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


def fold(name: str) -> str:
    """Return a name with a to z in upper case, so that two spellings of one name are equal."""
    return name.translate(_A_TO_Z)


def folded(expression: str) -> str:
    """Return the SQL that folds `expression`, which is an SQL expression of any type with a cast to text."""
    return f'upper(CAST({expression} AS text) COLLATE "C")'


def escape_controls(text: str) -> str:
    """Escape the characters that a terminal would interpret, in JSON's form, so that JSON stays valid."""
    return _CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """Escape line feeds too, so that a text from outside cannot forge another line."""
    return escape_controls(text).replace("\n", "\\n")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, such as "1 pair" or "2 pairs". Pass `many` for an irregular plural."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
