"""Who may do what: one table."""

from __future__ import annotations

from typing import Literal

from service.admin.errors import Forbidden
from service.admin.identity import Identity, Role

Action = Literal["read", "sync_pair", "sync_user", "request_run", "cancel_run", "replay_letters", "discard_letters"]
"""`read` is every question that changes nothing: issues, runs, dead letters, users, the overview."""

_STAFF: frozenset[Role] = frozenset({"admin", "instructor"})
_ADMINS: frozenset[Role] = frozenset({"admin"})
_ALLOWED: dict[Action, frozenset[Role]] = {
    "read": _STAFF,
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
