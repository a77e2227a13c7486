"""What every command begins with: the settings, with a word about names that are none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import output

if TYPE_CHECKING:
    from service.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV with a heading on stdout.")]


def one_form(as_json: bool, as_csv: bool) -> None:
    """Check that an answer has one form.

    Raises:
        WrongUse: it would have two.
    """
    from service.cli.exits import WrongUse

    if as_json and as_csv:
        raise WrongUse("give --json or --csv, not both")


def settings(*, servers: bool = True) -> Settings:
    """Read the settings; warn about `LEVELSYNC_` names that no setting has, and what of the database's URL is ignored.

    With `servers`, the command needs PostgreSQL or Kafka.

    Raises:
        SettingsError: for a value that cannot be used.
        Unreachable: they are those of `levelsync up` in this folder, which does not run.
    """
    from service.database.url import database_url
    from service.settings import PREFIX, load_settings, unknown_names

    for name, nearest in unknown_names().items():
        output.remark(f"levelsync: warning: {unknown_sentence(name, nearest)}")
    settings = load_settings()
    if servers:
        _check_up()
    for warning in database_url(settings).warnings:
        output.remark(f"levelsync: warning: {PREFIX}DATABASE_URL: {warning}")
    return settings


def _check_up() -> None:
    from service.cli import up_folder
    from service.cli.exits import Unreachable
    from service.settings import PREFIX, Settings

    if up_folder.has_stopped():
        configured = Settings(_env_file=".env").model_fields_set
        if not configured & {"database_url", "kafka_bootstrap_servers"}:
            raise Unreachable(
                f"levelsync up has run in {Path.cwd()} but is not running: start it in another terminal, "
                f"or set {PREFIX}DATABASE_URL and {PREFIX}KAFKA_BOOTSTRAP_SERVERS"
            )


def unknown_sentence(name: str, nearest: str | None) -> str:
    """Say that `name` is no setting, and which one may have been meant."""
    return f"{name} is no setting" + (f"; did you mean {nearest}?" if nearest else "")
