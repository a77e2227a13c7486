"""What endpoints take and answer, for the documents and for clients in any language."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from events import Direction
from service.api.examples import ISSUE, SYNCED, example

SpecializationName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=50, pattern=r"^[^\u0000]+$"),
    Field(description="A row of `specializations`, in any case.", examples=["PLAYER"]),
]
DirectionField = Annotated[
    Direction, Field(description="Which row is believed; `highest` never lowers a level.", examples=["highest"])
]
KIND = Literal[
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
    """One pair of a user."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"specialization": "PLAYER", "direction": "progress_to_license"}]}
    )

    specialization: SpecializationName
    direction: DirectionField = "progress_to_license"


class UserSync(Body):
    """Every specialization of a user."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"direction": "progress_to_license"}]})

    direction: DirectionField = "progress_to_license"


class BulkSync(Body):
    """Everything that differs, through a run. It writes only where `dry_run` is literally `false`."""

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
    issue_type: KIND


class SeenIssue(Issue):
    """With `confirmed` where the last complete scan found the very same levels, and no event explained them."""

    model_config = example(ISSUE | {"status": "confirmed"})

    status: Literal["suspected", "confirmed"]


class HandledIssue(Issue):
    """With what a run made of it."""

    model_config = example(ISSUE | {"status": "healed"})

    status: str = Field(examples=["healed"])


class SyncAnswer(BaseModel):
    """A pair, synced or not: `success` is whether its rows agree now."""

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
    """With the answer that a single sync of it would have had."""

    model_config = example(ISSUE | {"status": "healed", "result": SYNCED})

    result: SyncAnswer


class UserSyncAnswer(BaseModel):
    """A result for each specialization of the database."""

    model_config = example(
        {"success": True, "user_id": 123, "sync_direction": "highest", "results": {"PLAYER": SYNCED}}
    )

    success: bool
    user_id: int
    sync_direction: Direction
    results: dict[str, SyncAnswer]


def _only_digits(value: Any) -> Any:
    """`1_000`, ` 7` and `7.0` are numbers to Python and no ids."""
    digits = str(value).removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("an id is a whole number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_only_digits)]
