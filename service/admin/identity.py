"""Who asks, what that role may do, and what is answered when it may not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from events.base import INT8_MAX


class AdminError(Exception):
    """An answer, not a defect."""

    is_audited = False
    """Whether the audit log has a row of it."""


class NotSignedIn(AdminError):  # noqa: N818 - an answer, as all below
    """No token, or one that is not good (401). Its text says what is wrong with it, never the token."""


class Forbidden(AdminError):  # noqa: N818
    """A known person, without the right (403)."""


class NoSuch(AdminError):  # noqa: N818
    """There is no such user, run or letter (404)."""


class Refused(AdminError):  # noqa: N818
    """It makes no sense as it was asked for (422)."""


class Busy(AdminError):  # noqa: N818
    """The database, or who vouches for tokens, cannot answer now (503): the same again later may succeed."""

    retry_after = 5
    """Seconds."""


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


Action = Literal[
    "read",
    "read_audit",
    "sync_pair",
    "sync_user",
    "request_run",
    "cancel_run",
    "replay_letters",
    "discard_letters",
]
"""`read` is every question that changes nothing: issues, runs, dead letters, users, the overview. The audit log has a
right of its own, because it says what people have done and from where."""

_STAFF: frozenset[Role] = frozenset({"admin", "instructor"})
_ADMINS: frozenset[Role] = frozenset({"admin"})
_ALLOWED: dict[Action, frozenset[Role]] = {
    "read": _STAFF,
    "read_audit": _ADMINS,
    "sync_pair": _STAFF,
    "sync_user": _STAFF,
    "request_run": _ADMINS,
    "cancel_run": _ADMINS,
    "replay_letters": _ADMINS,
    "discard_letters": _ADMINS,
}


def may(who: Identity, action: Action) -> bool:
    """Whether they may."""
    return who.role in _ALLOWED[action]


def allow(who: Identity, action: Action) -> None:
    """Let them, or not.

    Raises:
        Forbidden: their role may not; the text names the roles that may.
    """
    if not may(who, action):
        allowed = " or ".join(sorted(_ALLOWED[action]))
        raise Forbidden(f"This needs the role {allowed}; yours is {who.role}.")
