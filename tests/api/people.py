"""Who asks in these tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.admin.identity import Identity, Role


def somebody(role: Role, subject: str = "1") -> Identity:
    """Somebody of a role, for an hour."""
    return Identity(subject, role, datetime.now(UTC) + timedelta(hours=1))
