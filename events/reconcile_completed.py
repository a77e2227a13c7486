"""A reconcile has ended."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from events.base import Event, Specialization, Text, UserId
from events.reconcile_requested import Direction
from events.topics import RECONCILE_COMPLETED_TOPIC, RECONCILE_COMPLETED_TYPE

RunStatus = Literal["planning", "running", "completed", "stopped_by_breaker", "cancelled", "failed"]


class Progress(BaseModel):
    """How many of the run's ranges are done."""

    model_config = ConfigDict(frozen=True, strict=True)
    ranges_done: int
    ranges_total: int


class Counts(BaseModel):
    """What the run found and did, in pairs (law 8)."""

    model_config = ConfigDict(frozen=True, strict=True)
    scanned: int = 0
    matching: int = 0
    mismatched: int = 0
    missing_license: int = 0
    missing_progress: int = 0
    needs_decision: int = 0
    unconfirmed: int = 0
    healed: int = 0
    changed_meanwhile: int = 0
    failed: int = 0


class ReconcileCompleted(Event):
    """The report of a run, in the shape that every command and endpoint shows."""

    TYPE: ClassVar[str] = RECONCILE_COMPLETED_TYPE
    TOPIC: ClassVar[str] = RECONCILE_COMPLETED_TOPIC

    run_id: Text
    status: RunStatus
    dry_run: bool
    direction: Direction
    specialization: Specialization | None = None
    user_id: UserId | None = None
    requested_by: Text | None = None
    requested_at: Text
    finished_at: Text | None = None
    progress: Progress
    counts: Counts
    would_stop: bool = False

    @property
    def key(self) -> str:
        """The run's id."""
        return self.run_id
