"""The bodies and answers of the endpoints of dead letters."""

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
    """Accept only RFC 3339. Pydantic would also read numbers and other text as times."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("a time must be written as 2026-11-23T09:00:00Z")
    return value


Moment = Annotated[
    AwareDatetime,
    Field(
        strict=False,
        ge=datetime(2000, 1, 1, tzinfo=UTC),
        lt=datetime(9999, 1, 1, tzinfo=UTC),
        examples=["2026-11-23T09:00:00Z"],
    ),
    BeforeValidator(_only_rfc3339),  # after the bounds, or the bounds would get keywords that JSON Schema does not have
]
UserId = Annotated[int, Field(ge=0, le=INT8_MAX, examples=[42])]
LetterId = Annotated[int, Field(ge=1, le=INT8_MAX, examples=[7])]


class LetterFilter(Body):
    """Open letters that match every given condition. Without a condition, `all` must be true."""

    reason: ReasonName | None = None
    topic: TopicName | None = None
    since: Moment | None = Field(None, description="First seen at this time or later.")
    until: Moment | None = Field(None, description="First seen before this time.")
    user_id: UserId | None = Field(None, description="The user in the record's key, or in `user_id` of its JSON.")
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def _narrows(self) -> LetterFilter:
        narrowed = any(value is not None for name, value in self if name != "all")
        if narrowed == bool(self.all):
            raise ValueError('give at least one condition, or "all": true and no condition')
        return self

    def conditions(self) -> dict[str, Any]:
        """Return the conditions as arguments of a `Selection`."""
        return self.model_dump(exclude={"all"})


class LetterAction(Body):
    """The letters to replay or discard, by `ids` or by `filter`. Only `"dry_run": false` writes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter": {"reason": "unknown_user"}, "dry_run": True}, {"ids": [7, 8]}]}
    )

    ids: Annotated[list[LetterId], Field(min_length=1, max_length=1000)] | None = None
    filter: LetterFilter | None = None
    dry_run: bool = Field(default=True, description="Count the letters and write nothing.")

    @model_validator(mode="after")
    def _one_of_both(self) -> LetterAction:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or filter")
        return self


class LetterAnswer(BaseModel):
    """The result of a replay or a discard, or of its dry run."""

    dry_run: bool
    selected: int = Field(description="Letters that were replayed or discarded, or would be.")
    on_its_way: int = Field(description="Skipped: replayed less than a minute ago, with no outcome yet.")
    unsendable: int = Field(description="Skipped by a replay: Kafka would refuse them.")
    not_open: int = Field(description="Ids for which there is no open letter.")
    left: int = Field(description="Letters that remain for the next call. One call handles at most 10,000.")


class DeadLetterLine(BaseModel):
    """A dead letter of a list, without its record."""

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
    would_apply_now: bool | None = Field(
        description="Null where only the database can decide, or where it was not checked."
    )
    would_apply_why: str


class DeadLetterCount(BaseModel):
    """The number of open dead letters of one reason."""

    reason: str
    meaning: str
    count: int
    oldest: datetime
    newest: datetime
    looked_at: int = Field(description="How many of the newest letters were checked.")
    would_apply: int = Field(description="How many of the checked letters would apply now.")


class DeadLetterHeader(BaseModel):
    """A header of a record. Its name and value are text, or base64 where they are not text."""

    key: str | None = None
    key_base64: str | None = None
    value: str | None = None
    base64: str | None = None


class DeadLetter(BaseModel):
    """A dead letter with its record. The key and the value are text, or base64 where they are not text."""

    id: int
    reason: str
    meaning: str
    detail: str
    topic: str
    partition: int
    offset: int
    record_timestamp: int = Field(description="The record's timestamp in Kafka, in milliseconds since 1970.")
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
