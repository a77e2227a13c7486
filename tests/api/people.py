"""Who asks in these tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.admin.identity import Identity, Role, user_id_of
from service.cli.token import sign
from service.settings import Settings


def somebody(role: Role, subject: str = "1") -> Identity:
    """Somebody of a role, for an hour."""
    return Identity(subject, role, datetime.now(UTC) + timedelta(hours=1), user_id_of(subject))


def token(settings: Settings, role: str, subject: str = "1") -> str:
    """A token of `levelsync token`."""
    return sign(settings, role, subject, timedelta(hours=1))
