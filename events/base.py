"""The base class of all events, and the types of their fields."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from events.attributes import Attributes, make_attributes
from events.writing import KafkaRecord, binary_record, structured_line

INT4_MAX = 2_147_483_647
INT8_MAX = 9_223_372_036_854_775_807
# PostgreSQL's text cannot contain the character NUL, so the contract refuses it.
_NO_NUL = r"^[^\u0000]*$"

UserId = Annotated[int, Field(ge=1, le=INT8_MAX, description="The user's id, `users.id`.")]
Level = Annotated[
    int,
    Field(ge=1, le=INT4_MAX, description="A level, from 1. `specializations.max_levels` sets the maximum."),
]
LevelBefore = Annotated[
    int,
    Field(
        ge=0,
        le=INT4_MAX,
        description="The previous level; 0 if there was none. It does not influence what is written.",
    ),
]
Specialization = Annotated[
    str,
    StringConstraints(min_length=1, max_length=50, pattern=_NO_NUL),
    Field(description="The name of a specialization, such as PLAYER, COACH or INTERNSHIP, in upper or lower case."),
]
ShortText = Annotated[str, StringConstraints(max_length=500, pattern=_NO_NUL)]
LongText = Annotated[str, StringConstraints(max_length=10_000, pattern=_NO_NUL)]
Count = Annotated[int, Field(ge=0)]

Direction = Literal["progress_to_license", "license_to_progress", "highest"]


class Event(BaseModel):
    """An event. Its fields are its data; `id`, `source` and `time` are attributes, which are sent outside the data.

    Text and `4.0` are refused where a number is expected. Unknown fields are ignored (forward compatible).
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
        """Create an event to publish. The defaults are a random `id`, the source "levelsync" and the current time.

        Raises:
            ValueError: No consumer would accept the data or the attributes. The error is a pydantic ValidationError,
                which is a ValueError.
        """
        super().__init__(**data)
        self._set_attributes(make_attributes(id, source, time))

    # Reading must not call the constructor: data may contain unknown fields named "id", "source" or "time", which are
    # not the attributes. Without this mark pydantic calls __init__ for data from JSON too.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    # A private attribute of pydantic would take as long as the validation itself, for every record that is read.
    @cached_property
    def attributes(self) -> Attributes:
        """The event's id, source and time. They are created on first use for an event that was not given any."""
        return make_attributes()

    def _set_attributes(self, attributes: Attributes) -> None:
        self.__dict__["attributes"] = attributes

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and isinstance(other, Event) and self.attributes == other.attributes

    def __hash__(self) -> int:
        return hash((type(self), self.attributes))

    @property
    def id(self) -> str:
        """The event's id, unique within `source`."""
        return self.attributes.id

    @property
    def source(self) -> str:
        """The publisher, as a URI reference."""
        return self.attributes.source

    @property
    def time(self) -> datetime:
        """When the event occurred, with a time zone."""
        return self.attributes.time

    @property
    def key(self) -> bytes:
        """The Kafka key. Events with the same key keep their order."""
        raise NotImplementedError

    def data_json(self) -> bytes:
        """Return the data as JSON, without the optional fields that have no value."""
        return self.model_dump_json(exclude_none=True).encode()

    def to_kafka(self) -> KafkaRecord:
        """Return the record to send, in CloudEvents binary mode."""
        return binary_record(self)

    def to_structured(self) -> str:
        """Return the whole event as one line of JSON without a line end, in CloudEvents structured mode."""
        return structured_line(self)
