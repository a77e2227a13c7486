"""`levelsync migrate`: Alembic, under an advisory lock."""

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
