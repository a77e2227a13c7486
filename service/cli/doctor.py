"""`levelsync doctor`: is everything as it has to be, and if not, what to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from service.cli import context, output
from service.cli.context import AsJson
from service.cli.exits import Exit
from service.cli.findings import Finding, Verdict, failed, passed

if TYPE_CHECKING:
    from service.settings import Settings

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
    from service.cli.doctor_database import database_findings
    from service.cli.doctor_kafka import kafka_findings
    from service.cli.doctor_service import service_findings

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
            (finding.verdict.value, _STYLES[finding.verdict]), output.shown(f"  {finding.check}: {finding.detail}")
        )
        if finding.advice:
            line.append(output.shown(f"\n      {finding.advice}"), style="bold")
        console.print(line, soft_wrap=True)
