"""How names of specializations compare: the letters a to z count as A to Z, and no other letter is folded.

PostgreSQL's `upper` follows the database's locale and Python's follows Unicode: in a database with the locale C the
two disagree about `játékos`, and a Turkish one gives `i` another capital. These 26 letters are the same everywhere.
"""

from __future__ import annotations

import string

_A_TO_Z = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


def fold(name: str) -> str:
    """Return the form in which two spellings of one name are equal."""
    return name.translate(_A_TO_Z)


def folded(expression: str) -> str:
    """Return the SQL of the same: `expression` is SQL text of any type that casts to text, an enum too."""
    return f'upper(CAST({expression} AS text) COLLATE "C")'
