"""`levelsync doctor`: check the installation, and print what to do about each fault."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from service.cli import context, output
from service.cli.context import AsJson
from service.cli.exits import Exit
from service.core.names import escape_controls

if TYPE_CHECKING:
    from service.checks import Finding
    from service.settings import Settings

_STYLES = {"PASS": "green", "FAIL": "bold red", "WARN": "yellow", "SKIP": "yellow"}


def doctor(as_json: AsJson = False) -> None:
    """Check settings, PostgreSQL, Kafka, the schema, the application's data and the appliers."""
    settings = context.settings()
    findings = asyncio.run(examine(settings))
    if as_json:
        output.print_json({"ok": not any(finding.failed for finding in findings), "checks": findings})
    else:
        _print(findings)
    raise typer.Exit(exit_code(findings))


async def examine(settings: Settings) -> list[Finding]:
    """Run every check, also after one that fails."""
    from service.cli.doctor_checks import database_findings, kafka_findings, service_findings, settings_findings

    database, kafka = await asyncio.gather(database_findings(settings), kafka_findings(settings))
    service = await service_findings(settings, [*database, *kafka])
    return [*settings_findings(), *database, *kafka, *service]


def exit_code(findings: list[Finding]) -> Exit:
    """Return 3 if a component does not answer, 1 if a check failed, else 0."""
    if any(finding.unreachable for finding in findings):
        return Exit.UNREACHABLE
    return Exit.NO if any(finding.failed for finding in findings) else Exit.DONE


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    console = output.stdout_console()
    for finding in findings:
        line = Text.assemble(
            (finding.verdict.value, _STYLES[finding.verdict.value]),
            escape_controls(f"  {finding.check}: {finding.detail}"),
        )
        if finding.advice:
            line.append(escape_controls(f"\n      {finding.advice}"), style="bold")
        console.print(line, soft_wrap=True)
