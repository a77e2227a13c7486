"""Every event of the contract, in one list."""

from __future__ import annotations

from events.base import Event
from events.level_synced import LevelSynced
from events.license_advanced import LicenseAdvanced
from events.progress_leveled_up import ProgressLeveledUp
from events.reconcile_chunk import ReconcileChunk
from events.reconcile_completed import ReconcileCompleted
from events.reconcile_requested import ReconcileRequested

MODELS: tuple[type[Event], ...] = (
    ProgressLeveledUp,
    LicenseAdvanced,
    ReconcileRequested,
    ReconcileChunk,
    ReconcileCompleted,
    LevelSynced,
)
"""Every event of the contract."""
BY_TYPE = {model.TYPE: model for model in MODELS}
