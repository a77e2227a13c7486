"""The results of syncs, and their form for the clients of the application (`as_dict`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.apply.write import PairResult
from service.core.outcomes import Pair
from service.core.pair import PairAction, Sides, Why
from service.sync.level import LevelDecided

_NO_ROWS = Sides(None, None, progress_exists=False, license_exists=False)


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of a sync of one pair."""

    user_id: int
    specialization: str
    action: PairAction
    message: str
    why: Why | None
    """Why nothing was written. None when something was written, and when the database refused the write."""
    before: Sides
    after: Sides
    refused: bool = False
    """Whether the database refused the write. Then nothing was written, and `message` contains the server's message."""

    @property
    def success(self) -> bool:
        """Whether the two rows agree after the sync."""
        return not self.refused and self.why in {None, Why.IN_SYNC}

    @property
    def failed(self) -> bool:
        """Whether there was something to sync and it was not synced."""
        return not self.success and self.why is not Why.NO_SOURCE

    def as_dict(self) -> dict[str, Any]:
        """Return the result with the keys that clients read."""
        return {
            "success": self.success,
            "message": self.message,
            "action": self.action.value,
            "synced": self.success,
            "progress_level": self.after.progress_level,
            "license_level": self.after.license_level,
            "old_progress_level": self.before.progress_level,
            "new_progress_level": self.after.progress_level,
            "old_license_level": self.before.license_level,
            "new_license_level": self.after.license_level,
        }


@dataclass(frozen=True, slots=True)
class UserSyncResult:
    """The results of a sync of one user, by specialization."""

    user_id: int
    sync_direction: str
    results: Mapping[str, SyncResult]

    @property
    def success(self) -> bool:
        """Whether no pair failed. A specialization in which the user has no row cannot fail."""
        return not any(result.failed for result in self.results.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the results with the keys that clients read."""
        return {
            "success": self.success,
            "user_id": self.user_id,
            "sync_direction": self.sync_direction,
            "results": {name: result.as_dict() for name, result in self.results.items()},
        }


def of_pair(pair: Pair, result: PairResult) -> SyncResult:
    """Return the result of a sync."""
    done = result.decision
    message = done.detail
    if done.action is PairAction.CREATED:
        message = f"{done.target} row created at level {done.new}"
    elif done.action is PairAction.UPDATED:
        message = f"{done.target} level changed from {done.old} to {done.new}"
    return SyncResult(*pair, done.action, message, done.why, result.before, result.after)


def of_level(pair: Pair, level: int, decided: LevelDecided) -> SyncResult:
    """Return the result of a decision about a level."""
    parts = [f"{write.side}: {_level_text(write.old)} -> {level}" for write in decided.writes]
    if decided.renamed:
        parts.append(f"the license is now written {pair[1]}")
    made = any(write.row_id is None for write in decided.writes)
    action = PairAction.CREATED if made else PairAction.UPDATED if parts else PairAction.NONE
    parts += [f"{other} is left as it is: remove it by hand" for other in decided.left_alone]
    after = Sides(level, level, progress_exists=True, license_exists=True)
    message = "; ".join(parts if action is not PairAction.NONE else ["Already in sync", *parts])
    return SyncResult(*pair, action, message, None if decided.writes else Why.IN_SYNC, decided.before, after)


def of_refusal(pair: Pair, reason: str) -> SyncResult:
    """Return the result of a write that the database refused."""
    message = f"the database refused it: {reason}"
    return SyncResult(*pair, PairAction.NONE, message, None, _NO_ROWS, _NO_ROWS, refused=True)


def _level_text(level: int | None) -> str:
    return "none" if level is None else str(level)
