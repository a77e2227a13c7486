"""The kinds of values that events carry, each with the bounds that the database sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

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
