"""`levelsync doctor`: is everything as it has to be, and if not, what to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from service.cli import context, output
from service.cli.context import AsJson
from service.cli.exits import Exit
from service.core.names import shown

if TYPE_CHECKING:
    from service.settings import Settings


class Verdict(StrEnum):
    """The outcome of one check."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    WARN = "WARN"
    """No fault by itself: somebody should look at it."""
    SKIP = "SKIP"
    """It depends on something that failed, or that is not there."""


@dataclass(frozen=True)
class Finding:
    """One check: what was found and, where that is not well, what to do."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""
    unreachable: bool = False
    """Whether a component did not answer: exit code 3."""


def passed(check: str, detail: str) -> Finding:
    """Give the finding of a check that is well."""
    return Finding(check, Verdict.PASS, detail)


def failed(check: str, detail: str, advice: str = "") -> Finding:
    """Give the finding of a check that is not well."""
    return Finding(check, Verdict.FAIL, detail, advice)


def unreachable(check: str, sentence: str) -> Finding:
    """Give the finding about a component that does not answer."""
    return Finding(check, Verdict.FAIL, sentence, unreachable=True)


def skipped(check: str, why: str) -> Finding:
    """Give the finding of a check that could not be made."""
    return Finding(check, Verdict.SKIP, why)


_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.WARN: "yellow", Verdict.SKIP: "yellow"}


def doctor(as_json: AsJson = False) -> None:
    """Check settings, PostgreSQL, Kafka, the schema, the application's data and the appliers."""
    settings = context.settings()
    findings = asyncio.run(examine(settings))
    if as_json:
        ok = all(finding.verdict is not Verdict.FAIL for finding in findings)
        output.print_json({"ok": ok, "checks": findings})
    else:
        _print(findings)
    raise typer.Exit(exit_code(findings))


async def examine(settings: Settings) -> list[Finding]:
    """Make every check; one that fails never keeps the others from being made."""
    from service.cli.doctor_checks import database_findings, kafka_findings, service_findings

    database, kafka = await asyncio.gather(database_findings(settings), kafka_findings(settings))
    service = await service_findings(settings, [*database, *kafka])
    return [*settings_findings(), *database, *kafka, *service]


def settings_findings() -> list[Finding]:
    """Check the names of the settings; their values were checked when they were read."""
    from service.settings import unknown_names

    unknown = unknown_names()
    if not unknown:
        return [passed("Settings", "every LEVELSYNC_ name is known, every value can be used")]
    return [
        failed("Settings", context.unknown_sentence(name, nearest), "rename or remove the variable")
        for name, nearest in unknown.items()
    ]


def exit_code(findings: list[Finding]) -> Exit:
    """Give 3 when a component does not answer, 1 when a check fails, else 0."""
    if any(finding.unreachable for finding in findings):
        return Exit.UNREACHABLE
    return Exit.NO if any(finding.verdict is Verdict.FAIL for finding in findings) else Exit.DONE


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    console = output.answers()
    for finding in findings:
        line = Text.assemble(
            (finding.verdict.value, _STYLES[finding.verdict]), shown(f"  {finding.check}: {finding.detail}")
        )
        if finding.advice:
            line.append(shown(f"\n      {finding.advice}"), style="bold")
        console.print(line, soft_wrap=True)
