"""The command `levelsync`: one file for each command. Slow imports are inside the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import (
    audit,
    dead_letters,
    demo,
    doctor,
    drift,
    erase,
    publish,
    reconcile,
    runs,
    schema,
    serve,
    sync,
    token,
    up,
)
from service.cli.exits import CommandGroup

app = typer.Typer(
    name="levelsync",
    cls=CommandGroup,
    help="Keeps a user's level in two PostgreSQL tables in agreement, driven by Kafka events.",
    epilog="Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 a component cannot be reached, 70 a defect, "
    "130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"levelsync {version('levelsync')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Declare the options of `levelsync` itself."""


app.command()(up.up)
app.command()(demo.demo)
app.command()(serve.serve)
app.command()(serve.migrate)
app.add_typer(publish.app, name="publish")
app.command()(drift.drift)
app.command()(sync.sync)
app.command()(reconcile.reconcile)
app.command()(runs.runs)
app.add_typer(dead_letters.app, name="dead-letters")
app.command()(audit.audit)
app.command()(erase.erase)
app.command()(token.token)
app.command()(doctor.doctor)
app.command()(schema.schema)
