"""Events of a reconcile run: its request, the work on one range, and its report."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from events.base import INT4_MAX, INT8_MAX, Count, Direction, Event, ShortText, Specialization, UserId
from events.topics import (
    RECONCILE_CHUNK_TYPE,
    RECONCILE_CHUNKS_TOPIC,
    RECONCILE_COMPLETED_TOPIC,
    RECONCILE_COMPLETED_TYPE,
    RECONCILE_REQUESTED_TOPIC,
    RECONCILE_REQUESTED_TYPE,
)


class ReconcileRequested(Event):
    """Requests a run. The run's id comes from the event's id, so a repeated request starts no second run (law 7)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"direction": "highest", "dry_run": True, "specialization": "PLAYER", "requested_by": "ops"}]
        }
    )

    TYPE: ClassVar[str] = RECONCILE_REQUESTED_TYPE
    TOPIC: ClassVar[str] = RECONCILE_REQUESTED_TOPIC

    direction: Direction = Field("progress_to_license", description="Which row a heal believes.")
    dry_run: bool = Field(default=True, description="Report, but write nothing (law 8).")
    specialization: Specialization | None = Field(
        None, description="Compare only this specialization. Absent: all specializations."
    )
    user_id: UserId | None = Field(None, description="Compare only this user. Absent: all users.")
    requested_by: ShortText | None = Field(None, description="Who requests the run, for the report.")
    force: bool = Field(default=False, description="Heal even if the breaker would stop the run (law 8).")
    max_lowered: int | None = Field(
        None,
        ge=0,
        le=INT8_MAX,
        description="Stop a real run before its first write if it would lower more levels than this. Absent: no limit.",
    )

    @property
    def key(self) -> bytes:
        """The request's id, so that a repeated request is on the same partition as the first one."""
        return self.id.encode()


class ReconcileChunk(Event):
    """Asks a worker to work on one range of a run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"run_id": "0b7f4f0e-6d0c-4a3e-9a65-3c6f2d1f5f10", "phase": "scan", "chunk": 0}]
        }
    )

    TYPE: ClassVar[str] = RECONCILE_CHUNK_TYPE
    TOPIC: ClassVar[str] = RECONCILE_CHUNKS_TOPIC

    run_id: UUID = Field(description="The run that the range belongs to.")
    phase: Literal["scan", "confirm", "heal"] = Field(description="The phase. Each phase passes over all ranges.")
    chunk: int = Field(ge=0, le=INT4_MAX, description="The range's number within its run, from 0.")

    @property
    def key(self) -> bytes:
        """`run_id:chunk`, so that the ranges of a run are distributed over the partitions."""
        return f"{self.run_id}:{self.chunk}".encode()


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
    """The progress of a run, in ranges."""

    ranges_done: Count
    ranges_total: Count


class RunCounts(_Part):
    """Numbers of pairs, by what the run found and did (law 8)."""

    scanned: Count
    matching: Count
    mismatched: Count
    missing_license: Count
    missing_progress: Count
    lowered: Count = Field(0, description="Confirmed pairs in which the run lowers a level.")
    needs_decision: Count = Field(
        description="Pairs that no direction can repair. Use `levelsync sync USER --specialization X --level N`."
    )
    unconfirmed: Count = Field(
        description="Suspects that could not be confirmed because the appliers did not catch up in time (law 5)."
    )
    healed: Count
    changed_meanwhile: Count = Field(
        description="Pairs whose levels changed during the run. The next run compares them again."
    )
    failed: Count


class ReconcileCompleted(Event):
    """Reports a run that has ended, with the same keys as every command and endpoint that shows a run."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    TYPE: ClassVar[str] = RECONCILE_COMPLETED_TYPE
    TOPIC: ClassVar[str] = RECONCILE_COMPLETED_TOPIC

    run_id: UUID = Field(description="The run's id: the id of the request, or a UUID derived from its source and id.")
    status: RunStatus = Field(description="How the run ended.")
    dry_run: bool = Field(description="Whether the run only reported.")
    direction: Direction = Field(description="Which row the run believed.")
    specialization: Specialization | None = None
    user_id: UserId | None = None
    requested_by: ShortText | None = Field(None, description="Who requested the run, if known.")
    requested_at: AwareDatetime = Field(description="When the run was requested.")
    finished_at: AwareDatetime | None = Field(None, description="When the run ended.")
    progress: RunProgress = Field(description="How many ranges the run has, and how many of them are done.")
    counts: RunCounts = Field(description="Numbers of pairs, by what the run found and did.")
    unconfirmed_by_kind: dict[str, Count] | None = Field(
        None, description="The number of suspects of each kind that the scan saw, if none could be confirmed."
    )
    would_stop: bool = Field(description="Whether the breaker stopped the run, or would stop a real one (law 8).")

    @property
    def key(self) -> bytes:
        """The run's id."""
        return str(self.run_id).encode()

    def data_json(self) -> bytes:
        """Return the data as JSON with every key, null too, so that a run looks the same everywhere."""
        return self.model_dump_json().encode()
