"""What all events share: fields that accept what the contract says, and the base class."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from events.attributes import Attributes, make_attributes
from events.writing import KafkaRecord, binary_record, structured_line

INT4_MAX = 2_147_483_647
INT8_MAX = 9_223_372_036_854_775_807
# PostgreSQL's text cannot hold the character NUL, so no text of the contract does.
_NO_NUL = r"^[^\u0000]*$"

UserId = Annotated[int, Field(ge=1, le=INT8_MAX, description="The user's id, `users.id`.")]
Level = Annotated[
    int,
    Field(ge=1, le=INT4_MAX, description="A level, from 1. The real maximum is `specializations.max_levels`."),
]
LevelBefore = Annotated[
    int,
    Field(ge=0, le=INT4_MAX, description="The level before; 0: there was none. It never decides what is written."),
]
Specialization = Annotated[
    str,
    StringConstraints(min_length=1, max_length=50, pattern=_NO_NUL),
    Field(description="A row of `specializations`, such as PLAYER, COACH or INTERNSHIP; the case does not matter."),
]
ShortText = Annotated[str, StringConstraints(max_length=500, pattern=_NO_NUL)]
LongText = Annotated[str, StringConstraints(max_length=10_000, pattern=_NO_NUL)]
Count = Annotated[int, Field(ge=0)]

Direction = Literal["progress_to_license", "license_to_progress", "highest"]


class Event(BaseModel):
    """An event. Its fields are its data; `id`, `source` and `time` are attributes, and travel outside the data.

    Numbers are never read from text or from `4.0`, and unknown fields are ignored (forward compatible).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002 - CloudEvents' own name
        source: str | None = None,
        time: datetime | None = None,
        **data: Any,
    ) -> None:
        """Make an event to publish: a random `id`, the source "levelsync" and the time now unless they are given.

        Raises:
            ValueError: data or attributes that no consumer would accept (pydantic's ValidationError is one).
        """
        super().__init__(**data)
        self._set_attributes(make_attributes(id, source, time))

    # Reading must not call the constructor: data may hold unknown fields called "id", "source" or "time", and they are
    # not the attributes. pydantic calls an __init__ that lacks this mark for data from JSON too.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    # A private attribute of pydantic's would cost every record that is read as much as its validation.
    @cached_property
    def attributes(self) -> Attributes:
        """The event's id, source and time; made now for an event that came without them."""
        return make_attributes()

    def _set_attributes(self, attributes: Attributes) -> None:
        self.__dict__["attributes"] = attributes

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and isinstance(other, Event) and self.attributes == other.attributes

    def __hash__(self) -> int:
        return hash((type(self), self.attributes))

    @property
    def id(self) -> str:
        """Unique within `source`."""
        return self.attributes.id

    @property
    def source(self) -> str:
        """Who published it, a URI reference."""
        return self.attributes.source

    @property
    def time(self) -> datetime:
        """When it occurred, with a zone."""
        return self.attributes.time

    @property
    def key(self) -> bytes:
        """Kafka's key: events of one key keep their order."""
        raise NotImplementedError

    def data_json(self) -> bytes:
        """The data as JSON; optional fields without a value are left out."""
        return self.model_dump_json(exclude_none=True).encode()

    def to_kafka(self) -> KafkaRecord:
        """The record to send: CloudEvents binary mode."""
        return binary_record(self)

    def to_structured(self) -> str:
        """The whole event as one line of JSON, without the line's end: CloudEvents structured mode."""
        return structured_line(self)
