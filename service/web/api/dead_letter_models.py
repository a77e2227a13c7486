"""What the endpoints of dead letters take and answer."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from events.base import INT8_MAX
from service.web.api.models import Body

ReasonName = Literal[
    "malformed",
    "invalid",
    "bad_time",
    "unknown_type",
    "unknown_specialization",
    "unknown_user",
    "level_out_of_range",
    "refused_by_database",
    "too_large",
]
TopicName = Literal["progress.leveled-up", "license.advanced", "sync.reconcile-requested", "sync.reconcile-chunks"]
"""The topics that levelsync reads."""
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _only_rfc3339(value: Any) -> Any:
    """A number is a time to pydantic, and so is much other text."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("a time is written as 2026-11-23T09:00:00Z")
    return value


Moment = Annotated[
    AwareDatetime,
    Field(
        strict=False,
        ge=datetime(2000, 1, 1, tzinfo=UTC),
        lt=datetime(9999, 1, 1, tzinfo=UTC),
        examples=["2026-11-23T09:00:00Z"],
    ),
    BeforeValidator(_only_rfc3339),  # behind the bounds: before them, JSON Schema would get keywords that it has not
]
UserId = Annotated[int, Field(ge=0, le=INT8_MAX, examples=[42])]
LetterId = Annotated[int, Field(ge=1, le=INT8_MAX, examples=[7])]


class LetterFilter(Body):
    """Open letters that fit everything that is given; `all` says in so many words that nothing narrows it."""

    reason: ReasonName | None = None
    topic: TopicName | None = None
    since: Moment | None = Field(None, description="First seen at this time or later.")
    until: Moment | None = Field(None, description="First seen before this time.")
    user_id: UserId | None = Field(None, description="In the record's key, or as `user_id` in its JSON.")
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def _narrows(self) -> LetterFilter:
        narrowed = any(value is not None for name, value in self if name != "all")
        if narrowed == bool(self.all):
            raise ValueError('give at least one condition, or "all": true and no condition')
        return self

    def conditions(self) -> dict[str, Any]:
        """As a selection takes them."""
        return self.model_dump(exclude={"all"})


class LetterAction(Body):
    """Which letters: `ids` or `filter`, exactly one. It writes only where `dry_run` is literally `false`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter": {"reason": "unknown_user"}, "dry_run": True}, {"ids": [7, 8]}]}
    )

    ids: Annotated[list[LetterId], Field(min_length=1, max_length=1000)] | None = None
    filter: LetterFilter | None = None
    dry_run: bool = Field(default=True, description="Say how many, and do nothing.")

    @model_validator(mode="after")
    def _one_of_both(self) -> LetterAction:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give ids or filter, exactly one of them")
        return self


class LetterAnswer(BaseModel):
    """What was done, or in a dry run would be."""

    dry_run: bool
    selected: int = Field(description="Letters that were, or would be, replayed or discarded.")
    on_its_way: int = Field(description="Left out: replayed within the last minute, and not come back yet.")
    unsendable: int = Field(description="Left out of a replay: Kafka would not take them.")
    not_open: int = Field(description="Ids of no open letter.")
    left: int = Field(description="What one more call would do: one handles 10,000 at most.")


class DeadLetterLine(BaseModel):
    """A dead letter in a list."""

    id: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    first_seen_at: datetime
    attempts: int
    value_bytes: int | None
    state: Literal["open", "replaying", "resolved"]
    resolution: str | None
    would_apply_now: bool | None = Field(description="Null where only the database can say, or nobody looked.")
    would_apply_why: str


class DeadLetterCount(BaseModel):
    """The open dead letters of one reason."""

    reason: str
    meaning: str
    count: int
    oldest: datetime
    newest: datetime
    looked_at: int = Field(description="So many of the newest were judged.")
    would_apply: int = Field(description="Of those, how many would apply now.")


class DeadLetterHeader(BaseModel):
    """A header: its name and value as text, or as base64 where they are none."""

    key: str | None = None
    key_base64: str | None = None
    value: str | None = None
    base64: str | None = None


class DeadLetter(BaseModel):
    """A dead letter, whole: key and value as text, or as base64 where they are none."""

    id: int
    reason: str
    meaning: str
    detail: str
    topic: str
    partition: int
    offset: int
    record_timestamp: int = Field(description="Kafka's, in milliseconds since 1970.")
    key: str | None
    key_base64: str | None
    value: str | None
    value_base64: str | None
    headers: list[DeadLetterHeader]
    first_seen_at: datetime
    attempts: int
    state: Literal["open", "replaying", "resolved"]
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None
    replayed_at: datetime | None
    last_attempt_timestamp: int | None
    would_apply_now: bool | None
    would_apply_why: str
