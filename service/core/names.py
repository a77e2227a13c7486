"""How names of specializations compare, how text of somebody else's is shown, and how numbers have their nouns.

Names: the letters a to z count as A to Z, and no other letter is folded.

PostgreSQL's `upper` follows the database's locale and Python's follows Unicode: in a database with the locale C the
two disagree about `játékos`, and a Turkish one gives `i` another capital. These 26 letters are the same everywhere.
"""

from __future__ import annotations

import re
import string

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
