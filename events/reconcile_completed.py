"""ReconcileCompleted: a run has ended, with its report."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from events.base import Event
from events.fields import Count, Direction, ShortText, Specialization, UserId
from events.topics import RECONCILE_COMPLETED_TOPIC, RECONCILE_COMPLETED_TYPE

RunStatus = Literal["planning", "running", "completed", "stopped_by_breaker", "cancelled", "expired"]


_EXAMPLE: JsonDict = {
    "run_id": "0b7f4f0e-6d0c-4a3e-9a65-3c6f2d1f5f10",
    "status": "completed",
    "dry_run": True,
    "direction": "highest",
    "specialization": None,
    "user_id": None,
    "requested_by": "ops",
    "requested_at": "2026-01-31T12:00:00Z",
    "finished_at": "2026-01-31T12:00:42Z",
    "progress": {"ranges_done": 4, "ranges_total": 4},
    "counts": {
        "scanned": 600,
        "matching": 597,
        "mismatched": 2,
        "missing_license": 1,
        "missing_progress": 0,
        "lowered": 0,
        "needs_decision": 0,
        "unconfirmed": 0,
        "healed": 0,
        "changed_meanwhile": 0,
        "failed": 0,
    },
    "unconfirmed_by_kind": {},
    "would_stop": False,
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class RunProgress(_Part):
    """How many ranges of the run are done."""

    ranges_done: Count
    ranges_total: Count


class RunCounts(_Part):
    """Pairs, by what the run found and did (law 8)."""

    scanned: Count
    matching: Count
    mismatched: Count
    missing_license: Count
    missing_progress: Count
    lowered: Count = Field(0, description="Of the confirmed pairs, those of which the run lowers a level.")
    needs_decision: Count = Field(description="No direction can repair these: `levelsync sync USER --level N` does.")
    unconfirmed: Count = Field(description="The appliers did not catch up in time to tell (law 5).")
    healed: Count
    changed_meanwhile: Count = Field(description="An event moved the pair during the run; the next run sees it.")
    failed: Count


class ReconcileCompleted(Event):
    """The run, in the shape in which every command and endpoint shows it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    TYPE: ClassVar[str] = RECONCILE_COMPLETED_TYPE
    TOPIC: ClassVar[str] = RECONCILE_COMPLETED_TOPIC

    run_id: UUID = Field(description="The run: the id of the event that requested it.")
    status: RunStatus = Field(description="How the run ended.")
    dry_run: bool = Field(description="Whether the run only reported.")
    direction: Direction = Field(description="Which row the run believed.")
    specialization: Specialization | None = None
    user_id: UserId | None = None
    requested_by: ShortText | None = Field(None, description="Who requested it, where that is known.")
    requested_at: AwareDatetime = Field(description="When it was requested.")
    finished_at: AwareDatetime | None = Field(None, description="When it ended.")
    progress: RunProgress = Field(description="How many of its key ranges are done, of how many.")
    counts: RunCounts = Field(description="Pairs, by what the run found and did.")
    unconfirmed_by_kind: dict[str, Count] | None = Field(
        None, description="What the scan saw of each kind, where nothing could be confirmed."
    )
    would_stop: bool = Field(description="Whether the breaker would stop a real run, or did (law 8).")

    @property
    def key(self) -> bytes:
        """The run's id."""
        return str(self.run_id).encode()

    def data_json(self) -> bytes:
        """The data as JSON, every key there: a run looks the same wherever it is shown."""
        return self.model_dump_json().encode()
