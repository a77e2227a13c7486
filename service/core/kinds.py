"""The kinds of drift and the directions of a heal, under their fixed names."""

from __future__ import annotations

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
