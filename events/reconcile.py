"""Events of a reconcile run: requested, one range of it, completed."""

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
    """Asks for one run; its event id is the run's id, so that asking twice runs once (law 7)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"direction": "highest", "dry_run": True, "specialization": "PLAYER", "requested_by": "ops"}]
        }
    )

    TYPE: ClassVar[str] = RECONCILE_REQUESTED_TYPE
    TOPIC: ClassVar[str] = RECONCILE_REQUESTED_TOPIC

    direction: Direction = Field("progress_to_license", description="Which row a heal believes.")
    dry_run: bool = Field(default=True, description="Report, and write nothing (law 8).")
    specialization: Specialization | None = Field(None, description="Only this one; absent: all.")
    user_id: UserId | None = Field(None, description="Only this user; absent: all.")
    requested_by: ShortText | None = Field(None, description="Who asks, for the report.")
    force: bool = Field(default=False, description="Heal even where the breaker would stop the run (law 8).")
    max_lowered: int | None = Field(
        None,
        ge=0,
        le=INT8_MAX,
        description="A real run stops before its first write when more levels would fall; absent: no limit.",
    )

    @property
    def key(self) -> bytes:
        """The request's id: a request that is sent again meets its first one on the same partition."""
        return self.id.encode()


class ReconcileChunk(Event):
    """Asks one worker to take one range of a run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"run_id": "0b7f4f0e-6d0c-4a3e-9a65-3c6f2d1f5f10", "phase": "scan", "chunk": 0}]
        }
    )

    TYPE: ClassVar[str] = RECONCILE_CHUNK_TYPE
    TOPIC: ClassVar[str] = RECONCILE_CHUNKS_TOPIC

    run_id: UUID = Field(description="The run whose range it is.")
    phase: Literal["scan", "confirm", "heal"] = Field(description="Each is a pass of its own over the ranges.")
    chunk: int = Field(ge=0, le=INT4_MAX, description="The range's number within its run, from 0.")

    @property
    def key(self) -> bytes:
        """`run_id:chunk`, which spreads the ranges of a run over the partitions."""
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
