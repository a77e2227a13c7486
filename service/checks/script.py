"""A script that makes some checks and prints a line for each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from service.checks.result import Check, Checker
from service.database.engine import make_engine
from service.settings import Settings, SettingsError, load_settings


def run(checkers: Sequence[Checker]) -> int:
    """Make the checks on the configured database; returns the exit code: 0 when all passed, else 1."""
    try:
        checks = asyncio.run(_make(load_settings(), checkers))
    except (SettingsError, SQLAlchemyError, OSError) as error:
        sys.stderr.write(f"The database cannot be checked: {error}\n")
        return 1
    for check in checks:
        sys.stdout.write(line(check) + "\n")
    return 0 if all(check.passed for check in checks) else 1


def line(check: Check) -> str:
    """Write a check as the user's own list has it: a mark, its name, PASS or FAIL, and what was found."""
    mark, verdict = ("✅", "PASS") if check.passed else ("❌", "FAIL")
    return f"{mark} {check.name}: {verdict} ({check.detail})" + (f" {check.fix}" if check.fix else "")


async def _make(settings: Settings, checkers: Sequence[Checker]) -> list[Check]:
    engine = make_engine(settings, pool_size=1)
    try:
        async with engine.connect() as conn:
            return [await checker(conn) for checker in checkers]
    finally:
        await engine.dispose()
