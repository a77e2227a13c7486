"""`levelsync serve` and `levelsync migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import context
from service.cli.exits import SaidNo, WrongUse


def migrate(
    revision: Annotated[str, typer.Option(help="Where to: a revision, or the newest.")] = "head",
) -> None:
    """Bring the database to this release (the same as `alembic upgrade head`)."""
    from sqlalchemy.exc import SQLAlchemyError

    from service.cli import reach
    from service.store.migrate import MigrationStopped, UnknownRevision
    from service.store.migrate import migrate as upgrade

    settings = context.settings()
    try:
        upgrade(settings, revision)
    except UnknownRevision as unknown:
        raise WrongUse(f"--revision: {unknown}") from unknown
    except MigrationStopped as stopped:
        raise SaidNo(str(stopped)) from stopped
    except (SQLAlchemyError, OSError) as error:
        raise reach.database_trouble(settings, error) from error


def serve(
    roles: Annotated[
        str | None,
        typer.Option(help="What this process does: apply,reconcile,relay,schedule,api.", show_default="all of them"),
    ] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C; the batch in hand is finished first."""
    from service.process.runtime import run

    settings = context.settings()
    raise typer.Exit(run(settings, read_roles(roles)))


def read_roles(text: str | None) -> frozenset[str]:
    """Read a comma-separated list of roles; None means all.

    Raises:
        WrongUse: for a name that is not a role, or an empty list.
    """
    from service.process.runtime import ROLES

    if text is None:
        return ROLES
    named = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not named or named - ROLES:
        wrong = ", ".join(sorted(named - ROLES)) or "nothing"
        raise WrongUse(f"--roles names {wrong}; the roles are {', '.join(sorted(ROLES))}")
    return named
