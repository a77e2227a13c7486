"""The two targets of events: licenses (of ProgressLeveledUp) and progress (of LicenseAdvanced)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One of the two tables: the name of its stored functions, and the application's own defaults."""

    name: str
    defaults: str
    """JSON object for the columns that only the application can fill."""


def license_target(defaults: Mapping[str, Any]) -> Target:
    """`user_licenses`, whose rises are kept in `license_progressions`."""
    return Target("license", json.dumps(defaults))


def progress_target(defaults: Mapping[str, Any]) -> Target:
    """`specialization_progress`, which has no history."""
    return Target("progress", json.dumps(defaults))
