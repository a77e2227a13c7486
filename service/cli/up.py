"""`levelsync up`: run PostgreSQL, a broker and the service in this folder, to try levelsync out."""

from __future__ import annotations

import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import context, output
from service.cli.exits import WrongUse

if TYPE_CHECKING:
    from service.settings import Settings

_TOKEN_TTL = timedelta(days=1)
_NOT_SERVED = "neither librdkafka's consumer groups nor kcat 1.7"
_STOPPED = "levelsync: stopped; the data stays in .levelsync (levelsync up --reset removes it)"


def up(
    port: Annotated[int | None, typer.Option(min=0, max=65535, show_default="8000", help="The service's port.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Remove this folder's data first.")] = False,
) -> None:
    """Start PostgreSQL, a broker and the service in this folder. Ctrl-C stops everything; PostgreSQL's data stays."""
    from service.cli import servers
    from service.cli.context import run_until_signal
    from service.telemetry.logs import configure_logs

    with servers.locked_folder(reset=reset) as data:
        settings = _settings(port)
        configure_logs(settings)
        _check_port(settings)
        try:
            run_until_signal(_up(settings, data))
        except KeyboardInterrupt:
            output.print_note(_STOPPED)
            raise
    output.print_note(_STOPPED)


def _settings(port: int | None) -> Settings:
    """Read the settings. Add the port, and the secret of this folder where no key is configured."""
    from pydantic import SecretStr

    from service.cli import servers

    settings = context.settings(servers=False)
    changes: dict[str, object] = {} if port is None else {"http_port": port}
    if settings.jwt_secret is None and settings.jwt_jwks_url is None:
        changes["jwt_secret"] = SecretStr(servers.secret())
    return settings.model_copy(update=changes)


def _check_port(settings: Settings) -> None:
    """Check that the port is free before anything starts.

    Raises:
        WrongUse: another process has the port.
    """
    from service.settings import SettingsError
    from service.web import http

    try:
        http.bind(settings).close()
    except SettingsError as error:
        raise WrongUse(f"{error} (or with --port)") from error


async def _up(settings: Settings, data: Path) -> None:
    from service.cli import servers
    from service.cli.servers import local_stack
    from service.process.runtime import Service

    output.print_note(f"Starting PostgreSQL and a broker in {Path.cwd() / servers.FOLDER} …")
    async with local_stack(data, settings) as reached, Service(reached) as service:
        await service.ready()
        port = service.http_url.rpartition(":")[2]
        servers.write_settings(_addresses(reached, port))
        _print_addresses(reached, service.http_url)
        await service.ended()


def _addresses(settings: Settings, port: str) -> dict[str, str]:
    found = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "HTTP_PORT": port,
    }
    if settings.jwt_secret is not None:
        found["JWT_SECRET"] = settings.jwt_secret.get_secret_value()
    return found


def _print_addresses(settings: Settings, url: str) -> None:
    from service.cli import reach

    output.print_line("levelsync is up; Ctrl-C stops everything.\n")
    output.print_line(f"  page        {url}/")
    output.print_line(f"  admin API   {url}/docs  (/openapi.json /asyncapi.json)")
    output.print_line(f"  service     {url}  (/livez /readyz /metrics)")
    output.print_line(f"  PostgreSQL  {reach.database_address(settings)}")
    output.print_line(f"  Kafka       {settings.kafka_bootstrap_servers}  (for trials: {_NOT_SERVED})")
    if settings.jwt_secret is not None:
        from service.cli.token import sign

        output.print_line(f"\n  Admin token, for a day:\n  {sign(settings, 'admin', '1', _TOKEN_TTL)}")
    command = _as_called()
    output.print_line("\nIn another terminal, in this folder:")
    output.print_line(f"  {command} publish leveled-up --user 42 --specialization PLAYER --to-level 5")
    output.print_line(f"  {command} doctor")


def _as_called() -> str:
    """Return the command as the user typed it, so that the printed lines also work without `.venv/bin` in the path."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return "python -m service"
    return "levelsync" if shutil.which("levelsync") == called else called
