"""Bring the two rows of a pair into agreement on request: lock → decide → write."""

from service.sync.bulk import BulkSyncResult
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
