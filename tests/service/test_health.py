"""What `/readyz` shows to anybody."""

from __future__ import annotations

import pytest

from service.telemetry.health import Health


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (
            "PostgreSQL at db.internal:5432,[::1]:2/app: connection refused",
            "PostgreSQL at …: connection refused",
        ),
        (
            'PostgreSQL at db.internal:5432/app: password authentication failed for user "app_rw"',
            'PostgreSQL at …: password authentication failed for user "…"',
        ),
        (
            'no pg_hba.conf entry for host "10.1.2.3", user "app_rw", database "app", no encryption',
            'no pg_hba.conf entry for host "…", user "…", database "…", no encryption',
        ),
        ('role "app_rw" does not exist', 'role "…" does not exist'),
        (
            "two: Connect call failed ('::1', 5432, 0, 0), Connect call failed ('10.1.2.3', 5432)",
            "two: Connect call failed (…), Connect call failed (…)",
        ),
        (
            "certificate verify failed: Hostname mismatch, certificate is not valid for 'db.internal'.",
            'certificate verify failed: Hostname mismatch, certificate is not valid for "…".',
        ),
        ("permission denied for table users", "permission denied for table users"),
        ("The schema is not migrated. Run: levelsync migrate", "The schema is not migrated. Run: levelsync migrate"),
    ],
)
def test_nobody_reads_a_database_s_names_from_readyz(problem: str, shown: str) -> None:
    """The problem stays; who is signed in reads all of it on the page."""
    health = Health()
    health.report("postgresql", health, problem)
    assert health.for_anybody() == {"postgresql": [shown]}
    assert health.by_component() == {"postgresql": [problem]}
