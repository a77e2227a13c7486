"""Some tests again: through PgBouncer, with the rights of rights.sql, and with those of acls.sh."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support import apache_kafka
from tests.support.pgbouncer import PROGRAM
from tests.support.repository import ROOT
from tests.support.roles import ACLS, THROUGH

_SECONDS = 900
pytestmark = [pytest.mark.soak, pytest.mark.real_broker, pytest.mark.timeout(_SECONDS + 60)]

ANY_WAY = (
    "tests/service/test_end_to_end.py",
    "tests/service/test_sharing.py",
    "tests/outbox/test_relay.py",
    "tests/dead_letters/test_through_kafka.py",
    "tests/schedule/test_schedule.py",
    "tests/api/test_endpoints.py",
)
OF_THE_SERVER = (*ANY_WAY, "tests/sync/test_sync.py", "tests/sync/test_together.py")
UNDER_THE_ACLS = (*ANY_WAY, "tests/service/test_bad_records.py", "tests/reconcile_live/test_no_false_alarm.py")


OWN_FAULT = re.compile(r"FATAL @src/\w+\.c:\d+ in function \w+\(\): .*bad (?:client )?state: \d+")
"""The last line of PgBouncer 1.18 when the connection of a cancel request closed early (docs/connecting.md)."""


@pytest.mark.skipif(PROGRAM is None, reason="needs Debian's pgbouncer")
def test_the_server_works_through_pgbouncer() -> None:
    run = _run("pgbouncer", OF_THE_SERVER)
    if run.returncode != 0 and (fault := OWN_FAULT.search(run.stdout)):
        pytest.skip(f"PgBouncer ended by a fault of its own: {fault[0]}")
    assert run.returncode == 0, run.stdout[-8000:]


def test_the_server_works_with_the_runtime_role() -> None:
    """It is neither a superuser nor an owner. Only the tests' own set-up runs as the owner."""
    _passes("runtime", OF_THE_SERVER)


@pytest.mark.skipif(bool(apache_kafka.unavailable()), reason="needs Apache Kafka from its Maven jars")
def test_the_server_works_under_the_acls() -> None:
    """Its Kafka user may do what acls.sh grants. The tests' own set-up is an operator's."""
    _passes(ACLS, UNDER_THE_ACLS)


def _passes(way: str, selection: tuple[str, ...]) -> None:
    run = _run(way, selection)
    assert run.returncode == 0, run.stdout[-8000:]


def _run(way: str, selection: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not soak", *selection]
    return subprocess.run(  # noqa: S603 - our own tests
        command, env=os.environ | {THROUGH: way}, cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=_SECONDS,
    )  # fmt: skip
