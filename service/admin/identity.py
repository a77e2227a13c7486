"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from events.fields import INT8_MAX

Role = Literal["admin", "instructor", "student", "none"]
"""The application's roles; `none` is somebody who signed in, with no role that is known here."""
ROLES: tuple[Role, ...] = ("admin", "instructor", "student")
"""The strongest first."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whoever a token names, as long as it lasts."""

    subject: str
    role: Role
    expires_at: datetime
    user_id: int | None = None
    """The row of `users` that the subject names, where subjects are users."""

    @property
    def synced_by(self) -> int | str:
        """As syncs take it: the user's id where it is known, else the subject in words, which no digits alone are."""
        if self.user_id is not None:
            return self.user_id
        return f"subject {self.subject}" if self.subject.isdigit() else self.subject


def user_id_of(subject: str) -> int | None:
    """The number that a subject is, where it can be a user's id."""
    if not (subject.isascii() and subject.isdigit() and len(subject) <= len(str(INT8_MAX))):
        return None
    return int(subject) if 0 < int(subject) <= INT8_MAX else None
