"""What endpoints answer about runs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from events import Direction
from events.reconcile_completed import RunCounts, RunProgress, RunStatus
from service.api.examples import BULK, FOUND, ISSUE, NOT_YET, RUN, SYNCED, example
from service.api.models import KIND, HandledIssue, HandledPair
from service.reconcile.values import RunPhase


class RunIssue(BaseModel):
    """What a run found, and what became of it."""

    model_config = example(FOUND)

    user_id: int
    user_email: str | None
    specialization: str
    issue_type: KIND
    progress_level: int | None
    license_level: int | None
    status: str = Field(examples=["confirmed"])
    detail: str
    seen_at: datetime
    lowered: bool = Field(description="Whether the run lowers one of its levels.")


class Progress(RunProgress):
    """How far the run is: in passes over its key ranges, and in its present phase."""

    phase: RunPhase | None = Field(description="What the run is doing; null once it has ended.")
    seconds_left: float | None = Field(description="Until the phase ends, where that is known; it never grows.")
    pairs_per_second: float | None = Field(description="How many pairs a second the phase works on, if on any.")


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
    unconfirmed_by_kind: dict[str, int] = Field(description="What the scan saw, where nothing could be confirmed.")
    would_stop: bool


class DryRunAnswer(BaseModel):
    """What a bulk sync would do; the first 100 issues, and with `more` the others at `runs/{run_id}/issues`."""

    model_config = example(
        BULK
        | {
            "dry_run": True,
            "issues": [ISSUE | {"status": "confirmed"}],
            "message": "Dry run completed: 1 pairs would be synced",
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
    """What a bulk sync did; the first 100 pairs, and with `more` the others at `runs/{run_id}/issues`."""

    model_config = example(
        BULK
        | {
            "dry_run": False,
            "synced_count": 1,
            "failed_count": 0,
            "results": [ISSUE | {"status": "healed", "result": SYNCED}],
            "message": "Run completed: 1 of 1 pairs synced, 0 failed",
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


class RunGoesOn(Run):
    """A run that has not ended yet: its report so far, and the keys of its answer without a value."""

    model_config = example(RUN | NOT_YET | {"status": "running", "finished_at": None, "message": "The run goes on"})

    success: None
    total_issues: None
    issues: None
    synced_count: None
    failed_count: None
    results: None
    more: None
    message: str
