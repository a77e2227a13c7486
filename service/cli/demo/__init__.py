"""`levelsync demo`: show levelsync at work from start to finish, on an embedded PostgreSQL and broker."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from service.cli.exits import Exit


def demo() -> None:
    """Show levelsync at work from start to finish, on an embedded PostgreSQL and an embedded broker."""
    from service.cli.context import run_until_signal
    from service.cli.demo.story import play

    with tempfile.TemporaryDirectory(prefix="levelsync-demo-", ignore_cleanup_errors=True) as folder:
        agree = run_until_signal(play(Path(folder)))
    raise typer.Exit(Exit.DONE if agree else Exit.NO)
