"""What every event shares: strict data, and the CloudEvents attributes that stand beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from events.writing import KafkaRecord, as_kafka, as_structured

INT4 = 2_147_483_647
"""The largest value of PostgreSQL's integer, which user ids and levels are stored in."""


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


UserId = Annotated[int, Field(ge=1, le=INT4, description="The user's id", examples=[42])]
Level = Annotated[int, Field(ge=1, le=INT4, description="A level; the first is 1", examples=[5])]
Specialization = Annotated[
    str,
    Field(min_length=1, max_length=50, description="Matched without case", examples=["PLAYER"]),
    AfterValidator(_without_nul),
]
Text = Annotated[str, Field(max_length=10_000), AfterValidator(_without_nul)]


class Event(BaseModel):
    """One event: its data are the fields; `id`, `source` and `time` are its CloudEvents attributes.

    Unknown data fields are ignored (forward compatible); numbers are JSON integers and nothing else.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]
    TYPE_BYTES: ClassVar[bytes] = b""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Keep the type as the bytes that a header holds: compared for every record."""
        cls.TYPE_BYTES = getattr(cls, "TYPE", "").encode()

    _id: str | None = PrivateAttr(None)
    _source: str = PrivateAttr("levelsync")
    _time: datetime | None = PrivateAttr(None)

    def __init__(
        self, *, id: str | None = None, source: str | None = None, time: datetime | None = None, **data: Any
    ) -> None:
        super().__init__(**data)
        self._id = id
        self._source = source or "levelsync"
        self._time = time

    # Read events are validated without the constructor above, so that data called "id" never becomes an attribute.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @property
    def id(self) -> str:
        """The event's id: with `source` it names this event and no other. A random UUID unless given."""
        if self._id is None:
            self._id = str(uuid4())
        return self._id

    @property
    def source(self) -> str:
        """Who publishes: a URI reference, for example ``/app/progress``."""
        return self._source

    @property
    def time(self) -> datetime:
        """When it happened, with a time zone; now unless given."""
        if self._time is None:
            self._time = datetime.now(UTC)
        return self._time

    @property
    def key(self) -> str:
        """What chooses the partition: records of one key keep their order."""
        return ""

    def to_kafka(self) -> KafkaRecord:
        """The record to publish, in CloudEvents' binary mode: topic, key, value, headers."""
        return as_kafka(self)

    def to_structured(self) -> str:
        """The event as one line of JSON, in CloudEvents' structured mode."""
        return as_structured(self)


class LevelEvent(Event):
    """A level was reached: the data that both level events share."""

    user_id: UserId
    specialization: Specialization
    to_level: Level
    from_level: Annotated[int, Field(ge=0, le=INT4, description="It never decides")] | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a rise that is none (a demotion is no event)."""
        super().model_post_init(context)
        if self.from_level is not None and self.from_level >= self.to_level:
            raise ValueError("to_level must be above from_level")

    @property
    def key(self) -> str:
        """The user's id, so that the events of one pair keep their order."""
        return str(self.user_id)
