"""`levelsync serve` and `levelsync migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import context
from service.cli.exits import NotDone, WrongUse


def migrate(
    revision: Annotated[str, typer.Option(help="The revision to migrate to; head is the newest.")] = "head",
) -> None:
    """Migrate the database to this release (the same as `alembic upgrade head`)."""
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
        raise NotDone(str(stopped)) from stopped
    except (SQLAlchemyError, OSError) as error:
        raise reach.database_trouble(settings, error) from error


def serve(
    roles: Annotated[
        str | None,
        typer.Option(help="The roles of this process: apply,reconcile,relay,schedule,api.", show_default="all of them"),
    ] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. It finishes its current batch first."""
    from service.process.runtime import run

    settings = context.settings()
    raise typer.Exit(run(settings, read_roles(roles)))


def read_roles(text: str | None) -> frozenset[str]:
    """Read a comma-separated list of roles; None means all.

    Raises:
        WrongUse: a name is not a role, or the list is empty.
    """
    from service.process.runtime import ROLES

    if text is None:
        return ROLES
    named = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not named or named - ROLES:
        wrong = ", ".join(sorted(named - ROLES)) or "nothing"
        raise WrongUse(f"--roles names {wrong}; the roles are {', '.join(sorted(ROLES))}")
    return named
