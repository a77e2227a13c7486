"""Results of checks, the decorator that creates checks, and running checks as a script."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Concatenate, ParamSpec

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.faults import InstallationFault, read_fault
from service.settings import Settings, SettingsError, load_settings
from service.store.engine import make_engine

P = ParamSpec("P")


class Verdict(StrEnum):
    """The outcome of one check."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    WARN = "WARN"
    """It is not a fault, but a person should look at it."""
    SKIP = "SKIP"
    """It depends on something that failed or that does not exist."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: its name, whether it passed, what was found, and what to do if it did not pass."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""
    unreachable: bool = False
    """Whether a component did not answer."""

    @property
    def passed(self) -> bool:
        """Whether the check was made and nothing is wrong."""
        return self.verdict in {Verdict.PASS, Verdict.WARN}

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return self.verdict is Verdict.FAIL


def passed(check: str, detail: str) -> Finding:
    """Return the finding of a check that passed."""
    return Finding(check, Verdict.PASS, detail)


def failed(check: str, detail: str, advice: str = "") -> Finding:
    """Return the finding of a check that failed."""
    return Finding(check, Verdict.FAIL, detail, advice)


def unreachable(check: str, sentence: str) -> Finding:
    """Return the finding about a component that does not answer."""
    return Finding(check, Verdict.FAIL, sentence, unreachable=True)


def skipped(check: str, why: str) -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(check, Verdict.SKIP, why)


Checker = Callable[[AsyncConnection], Awaitable[Finding]]
_Look = Callable[Concatenate[AsyncConnection, P], Awaitable[str]]
_Checks = Callable[Concatenate[AsyncConnection, P], Awaitable[Finding]]


class CheckFailed(Exception):  # noqa: N818 - a finding, not an error
    """A check did not pass. The text states what was found. `advice` replaces the check's own advice."""

    def __init__(self, detail: str, advice: str = "") -> None:
        super().__init__(detail)
        self.advice = advice


class CheckWarned(Exception):  # noqa: N818 - a finding, not an error
    """A check passed with a warning. The text names what a person should look at."""


def check(name: str, advice: str) -> Callable[[_Look[P]], _Checks[P]]:
    """Turn a function into a check. The function returns what it found, or raises CheckFailed or CheckWarned.

    It runs in a savepoint that is rolled back, so that a check changes nothing and does not affect other checks.
    A check does not raise, because an error of the database is a failed check too.
    """

    def decorate(look: _Look[P]) -> _Checks[P]:
        @wraps(look)
        async def checked(conn: AsyncConnection, /, *args: P.args, **kwargs: P.kwargs) -> Finding:
            try:
                async with conn.begin_nested() as savepoint:
                    detail = await look(conn, *args, **kwargs)
                    await savepoint.rollback()
            except CheckWarned as found:
                return Finding(name, Verdict.WARN, str(found), advice)
            except CheckFailed as found:
                return failed(name, str(found), found.advice or advice)
            except InstallationFault as found:
                return failed(name, str(found), advice)
            except SQLAlchemyError as error:
                return failed(name, read_fault(error).message, advice)
            return passed(name, detail)

        return checked

    return decorate


def run(checkers: Sequence[Checker]) -> int:
    """Run checks on the configured database. Return the exit code: 0 when all passed, else 1."""
    try:
        findings = asyncio.run(_run_all(load_settings(), checkers))
    except (SettingsError, SQLAlchemyError, OSError) as error:
        sys.stderr.write(f"The database cannot be checked: {error}\n")
        return 1
    for finding in findings:
        sys.stdout.write(line(finding) + "\n")
    return 0 if all(finding.passed for finding in findings) else 1


def line(finding: Finding) -> str:
    """Return a check as a line: a mark, its name, PASS or FAIL, what was found, and what to do."""
    mark, verdict = ("✅", "PASS") if finding.passed else ("❌", "FAIL")
    return f"{mark} {finding.check}: {verdict} ({finding.detail})" + (f" {finding.advice}" if finding.advice else "")


async def _run_all(settings: Settings, checkers: Sequence[Checker]) -> list[Finding]:
    engine = make_engine(settings, pool_size=1)
    try:
        async with engine.connect() as conn:
            return [await checker(conn) for checker in checkers]
    finally:
        await engine.dispose()
