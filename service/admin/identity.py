"""Identities, the actions that each role allows, and the errors that are answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from events.base import INT8_MAX


class AdminError(Exception):
    """An answer to the caller, not a defect. Its text is shown to them."""

    is_audited = False
    """Whether the audit log already has a row for it."""


class NotSignedIn(AdminError):  # noqa: N818 - an answer, as all below
    """There is no token, or it is not valid (401). The text names the fault and never contains the token."""


class Forbidden(AdminError):  # noqa: N818
    """The person is known and their role does not allow the action (403)."""


class NoSuch(AdminError):  # noqa: N818
    """The user, run or dead letter does not exist (404)."""


class Refused(AdminError):  # noqa: N818
    """The request is not valid (422)."""


class Busy(AdminError):  # noqa: N818
    """The database or the server of the tokens' keys cannot answer now (503). A retry may succeed."""

    retry_after = 5
    """Seconds."""


Role = Literal["admin", "instructor", "student", "none"]
"""The application's roles. `none` is the role of somebody who signed in with no role that is known here."""
ROLES: tuple[Role, ...] = ("admin", "instructor", "student")
"""The strongest first."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The person whom a token names, until the token expires."""

    subject: str
    role: Role
    expires_at: datetime
    user_id: int | None = None
    """The id in `users` that the subject refers to, where subjects are users."""

    @property
    def synced_by(self) -> int | str:
        """Return the name that a sync stores: the user's id, or the subject as text that is never digits alone."""
        if self.user_id is not None:
            return self.user_id
        return f"subject {self.subject}" if self.subject.isdigit() else self.subject


def user_id_of(subject: str) -> int | None:
    """Return the subject as a number where it can be a user's id, else None."""
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
"""`read` covers issues, runs, dead letters, users and the overview. The audit log has a separate right, because it
shows what people have done and from where."""

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
    """Return whether the person's role allows the action."""
    return who.role in _ALLOWED[action]


def allow(who: Identity, action: Action) -> None:
    """Check that the person's role allows the action.

    Raises:
        Forbidden: it does not. The text names the roles that do.
    """
    if not may(who, action):
        allowed = " or ".join(sorted(_ALLOWED[action]))
        raise Forbidden(f"This needs the role {allowed}; yours is {who.role}.")
