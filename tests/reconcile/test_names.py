"""Kinds, directions and counts have one list each; what has to repeat it, SQL and the contract, has the same."""

from __future__ import annotations

import re
from typing import get_args

from events import Direction
from events.reconcile import RunCounts
from service.core.names import DIRECTIONS, DriftKind
from service.reconcile.sql import FALLS
from service.reconcile.values import COUNTS
from service.store.comparison import COUNTED_WITH_LICENSE, compared


def test_the_comparison_knows_every_kind_and_no_other() -> None:
    """The one name besides is of rows that another row counts for."""
    named = re.findall(r"(?:THEN|ELSE) '(\w+)'", compared("true", "true"))
    assert set(named) == {*DriftKind, COUNTED_WITH_LICENSE}


def test_the_contract_has_the_counts_and_directions_of_the_service() -> None:
    """The contract repeats them, because it imports nothing of the service."""
    assert tuple(RunCounts.model_fields) == COUNTS
    assert get_args(Direction) == DIRECTIONS
    assert set(re.findall(r"WHEN '(\w+)' THEN", FALLS)) == set(DIRECTIONS) - {"highest"}
