"""The bodies and answers of the API, with examples."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from events import Direction
from events.base import INT8_MAX
from events.reconcile import RunCounts, RunProgress, RunStatus
from service.core.names import DriftKind
from service.reconcile.values import COUNTS, RunPhase

ISSUE = {
    "user_id": 123,
    "user_email": "student123@example.org",
    "specialization": "PLAYER",
    "progress_level": 5,
    "license_level": 4,
    "difference": 1,
    "recommended_action": "sync_progress_to_license",
    "issue_type": "mismatched",
}
FOUND = {name: value for name, value in ISSUE.items() if name not in {"difference", "recommended_action"}} | {
    "status": "confirmed",
    "detail": "",
    "seen_at": "2026-11-23T06:00:00+00:00",
    "lowered": False,
}
SYNCED = {
    "success": True,
    "message": "license level changed from 4 to 5",
    "action": "updated",
    "synced": True,
    "progress_level": 5,
    "license_level": 5,
    "old_progress_level": 5,
    "new_progress_level": 5,
    "old_license_level": 4,
    "new_license_level": 5,
}
RUN_ID = "3f301f46-108e-5aec-ac7d-bb07d4badd90"
COUNTED = dict.fromkeys(COUNTS, 0) | {"scanned": 294, "matching": 293, "mismatched": 1}
RUN = {
    "run_id": RUN_ID,
    "status": "completed",
    "dry_run": True,
    "direction": "highest",
    "specialization": None,
    "user_id": None,
    "requested_by": "1",
    "requested_at": "2026-11-23T06:00:00+00:00",
    "finished_at": "2026-11-23T06:00:11+00:00",
    "progress": {
        "ranges_done": 2,
        "ranges_total": 2,
        "phase": None,
        "seconds_left": None,
        "pairs_per_second": None,
    },
    "counts": COUNTED,
    "unconfirmed_by_kind": {},
    "would_stop": False,
}
BULK = {"success": True, "total_issues": 1, "more": False, "run_id": RUN_ID}
NOT_YET = dict.fromkeys(("success", "total_issues", "issues", "synced_count", "failed_count", "results", "more"))


def example(one: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a model with an example."""
    return ConfigDict(json_schema_extra={"examples": [one]})


SpecializationName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=50, pattern=r"^[^\u0000]+$"),
    Field(description="The name of a specialization, in any case.", examples=["PLAYER"]),
]
DirectionField = Annotated[
    Direction, Field(description="Which row is correct; `highest` never lowers a level.", examples=["highest"])
]


class Body(BaseModel):
    """A strict body: unknown fields are refused, and so are values of another type, as `"false"` for `false`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class PairSync(Body):
    """A sync of one pair of a user."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"specialization": "PLAYER", "direction": "progress_to_license"}]}
    )

    specialization: SpecializationName
    direction: DirectionField = "progress_to_license"


class UserSync(Body):
    """A sync of every specialization of a user."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"direction": "progress_to_license"}]})

    direction: DirectionField = "progress_to_license"


class BulkSync(Body):
    """A sync of every pair that differs, through a run. Only `"dry_run": false` writes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"direction": "progress_to_license", "dry_run": True}]})

    direction: DirectionField = "progress_to_license"
    dry_run: bool = Field(default=True, description="Report what would be written, and write nothing.")


class Issue(BaseModel):
    """A pair that differs now."""

    user_id: int
    user_email: str | None
    specialization: str
    progress_level: int | None
    license_level: int | None
    difference: int | None
    recommended_action: Literal[
        "sync_progress_to_license",
        "sync_license_to_progress",
        "create_license_from_progress",
        "create_progress_from_license",
        "decide_level",
        "remove_by_hand",
    ]
    issue_type: DriftKind


class SeenIssue(Issue):
    """A pair that differs now. It is `confirmed` where the last complete scan confirmed the same levels."""

    model_config = example(ISSUE | {"status": "confirmed"})

    status: Literal["suspected", "confirmed"]


class HandledIssue(Issue):
    """A pair that a run found to differ, and its outcome."""

    model_config = example(ISSUE | {"status": "healed"})

    status: str = Field(examples=["healed"])


class SyncAnswer(BaseModel):
    """The result of the sync of a pair. `success` is whether its rows agree now."""

    model_config = example(SYNCED)

    success: bool
    message: str
    action: Literal["created", "updated", "none"]
    synced: bool
    progress_level: int | None
    license_level: int | None
    old_progress_level: int | None
    new_progress_level: int | None
    old_license_level: int | None
    new_license_level: int | None


class HandledPair(HandledIssue):
    """A pair that a run found to differ, its outcome, and the answer that a sync of this pair would return."""

    model_config = example(ISSUE | {"status": "healed", "result": SYNCED})

    result: SyncAnswer


class UserSyncAnswer(BaseModel):
    """The result of each specialization of the database."""

    model_config = example(
        {"success": True, "user_id": 123, "sync_direction": "highest", "results": {"PLAYER": SYNCED}}
    )

    success: bool
    user_id: int
    sync_direction: Direction
    results: dict[str, SyncAnswer]


def _only_digits(value: Any) -> Any:
    """Refuse `1_000`, ` 7` and `7.0`, which Python reads as numbers."""
    digits = str(value).removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("an id is a whole number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_only_digits)]
LetterNumber = Annotated[int, Field(ge=1, le=INT8_MAX), BeforeValidator(_only_digits)]
UserNumber = Annotated[int, Field(ge=0, le=INT8_MAX), BeforeValidator(_only_digits)]


class RunIssue(BaseModel):
    """A pair that a run found to differ, and its outcome."""

    model_config = example(FOUND)

    user_id: int
    user_email: str | None
    specialization: str
    issue_type: DriftKind
    progress_level: int | None
    license_level: int | None
    status: str = Field(examples=["confirmed"])
    detail: str
    seen_at: datetime
    lowered: bool = Field(description="Whether the run lowers a level of the pair.")


class Progress(RunProgress):
    """The progress of a run, over all its ranges and in its current phase."""

    phase: RunPhase | None = Field(description="What the run is doing; null after its end.")
    seconds_left: float | None = Field(description="Seconds until the phase ends, where known. It never grows.")
    pairs_per_second: float | None = Field(description="Pairs that the phase handles in a second, if any.")


class Run(BaseModel):
    """A reconcile run."""

    model_config = example(RUN)

    run_id: UUID
    status: RunStatus
    dry_run: bool
    direction: Direction
    specialization: str | None
    user_id: int | None
    requested_by: str | None
    requested_at: datetime
    finished_at: datetime | None
    progress: Progress
    counts: RunCounts
    unconfirmed_by_kind: dict[str, int] = Field(description="By kind, where no pair could be confirmed; else empty.")
    would_stop: bool


class DryRunAnswer(BaseModel):
    """The result of a dry run of a bulk sync, with the first 100 issues. `runs/{run_id}/issues` has all issues."""

    model_config = example(
        BULK
        | {
            "dry_run": True,
            "issues": [ISSUE | {"status": "confirmed"}],
            "message": "Dry run completed: 1 pair would be synced",
        }
    )

    success: bool
    dry_run: Literal[True]
    total_issues: int
    issues: list[HandledIssue]
    more: bool
    message: str
    run_id: UUID


class BulkAnswer(BaseModel):
    """The result of a bulk sync, with the first 100 pairs. `runs/{run_id}/issues` has all pairs."""

    model_config = example(
        BULK
        | {
            "dry_run": False,
            "synced_count": 1,
            "failed_count": 0,
            "results": [ISSUE | {"status": "healed", "result": SYNCED}],
            "message": "Run completed: 1 of 1 pair synced, 0 failed",
        }
    )

    success: bool
    dry_run: Literal[False]
    total_issues: int
    synced_count: int
    failed_count: int
    results: list[HandledPair]
    more: bool
    message: str
    run_id: UUID


class RunInProgress(Run):
    """A run that has not ended yet: its report so far, and the keys of the later answer with null values."""

    model_config = example(
        RUN
        | NOT_YET
        | {
            "status": "running",
            "finished_at": None,
            "message": f"The run has not ended yet. Watch /api/v1/licenses/admin/sync/runs/{RUN_ID}",
        }
    )

    success: None
    total_issues: None
    issues: None
    synced_count: None
    failed_count: None
    results: None
    more: None
    message: str
