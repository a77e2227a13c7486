"""What endpoints take and answer, for the documents and for clients in any language."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from events import Direction

SpecializationName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=50, pattern=r"^[^\u0000]+$"),
    Field(description="A row of `specializations`, in any case.", examples=["PLAYER"]),
]
DirectionField = Annotated[
    Direction, Field(description="Which row is believed; `highest` never lowers a level.", examples=["highest"])
]
_KIND = Literal[
    "mismatched",
    "missing_license",
    "missing_progress",
    "out_of_range",
    "null_level",
    "unknown_specialization",
    "wrong_case",
    "duplicate",
]


class Body(BaseModel):
    """A body says exactly what it says: other fields are refused, and so is `"false"` where `false` is meant."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class PairSync(Body):
    """One pair of a user (R29)."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"specialization": "PLAYER", "direction": "progress_to_license"}]}
    )

    specialization: SpecializationName
    direction: DirectionField = "progress_to_license"


class UserSync(Body):
    """Every specialization of a user (R30)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"direction": "progress_to_license"}]})

    direction: DirectionField = "progress_to_license"


class BulkSync(Body):
    """Everything that differs, through a run (R31). It writes only where `dry_run` is literally `false`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"direction": "progress_to_license", "dry_run": True}]})

    direction: DirectionField = "progress_to_license"
    dry_run: bool = Field(default=True, description="Report, and write nothing.")


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
    issue_type: _KIND


class SeenIssue(Issue):
    """With `confirmed` where the last complete scan found the very same levels, and no event explained them."""

    status: Literal["suspected", "confirmed"]


class HandledIssue(Issue):
    """With what a run made of it."""

    status: str = Field(examples=["healed"])


class RunIssue(BaseModel):
    """What a run found, and what became of it."""

    user_id: int
    user_email: str | None
    specialization: str
    issue_type: _KIND
    progress_level: int | None
    license_level: int | None
    status: str = Field(examples=["confirmed"])
    detail: str
    seen_at: datetime


class SyncAnswer(BaseModel):
    """A pair, synced or not: `success` is whether its rows agree now."""

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


class UserSyncAnswer(BaseModel):
    """A result for each specialization of the database."""

    success: bool
    user_id: int
    sync_direction: Direction
    results: dict[str, SyncAnswer]


class Progress(BaseModel):
    """How far a run is."""

    ranges_done: int
    ranges_total: int


class Counts(BaseModel):
    """Pairs, by what a run found and did."""

    scanned: int
    matching: int
    mismatched: int
    missing_license: int
    missing_progress: int
    needs_decision: int
    unconfirmed: int
    healed: int
    changed_meanwhile: int
    failed: int


class Run(BaseModel):
    """A reconcile run."""

    run_id: UUID
    status: Literal["planning", "running", "completed", "stopped_by_breaker", "cancelled", "failed"]
    dry_run: bool
    direction: Direction
    specialization: str | None
    user_id: int | None
    requested_by: str | None
    requested_at: datetime
    finished_at: datetime | None
    progress: Progress
    counts: Counts
    would_stop: bool


class DryRunAnswer(BaseModel):
    """What a bulk sync would do; the first 100 issues, all of them are at `runs/{run_id}/issues`."""

    success: bool
    dry_run: Literal[True]
    total_issues: int
    issues: list[HandledIssue]
    message: str
    run_id: UUID


class BulkAnswer(BaseModel):
    """What a bulk sync did; the first 100 pairs, all of them are at `runs/{run_id}/issues`."""

    success: bool
    dry_run: Literal[False]
    total_issues: int
    synced_count: int
    failed_count: int
    results: list[HandledIssue]
    message: str
    run_id: UUID


class RunGoesOn(Run):
    """A run that has not ended yet: its report so far, and the keys of its answer without a value."""

    success: None
    total_issues: None
    issues: None
    synced_count: None
    failed_count: None
    results: None
    message: str


def _only_digits(value: Any) -> Any:
    """`1_000`, ` 7` and `7.0` are numbers to Python and no ids."""
    digits = str(value).removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("an id is a whole number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_only_digits)]
