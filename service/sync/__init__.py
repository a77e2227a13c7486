"""Bringing the two records of a level into agreement on request: lock → decide → write, one write path."""

from service.sync.everything import BulkSyncResult
from service.sync.issues import DesyncIssue
from service.sync.level import LevelOutOfRange, SyncRefused, UnknownDirection, UnknownSpecialization, UnknownUser
from service.sync.results import SyncResult, UserSyncResult
from service.sync.service import ProgressLicenseSyncService

__all__ = [
    "BulkSyncResult",
    "DesyncIssue",
    "LevelOutOfRange",
    "ProgressLicenseSyncService",
    "SyncRefused",
    "SyncResult",
    "UnknownDirection",
    "UnknownSpecialization",
    "UnknownUser",
    "UserSyncResult",
]
