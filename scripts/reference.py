"""Write docs/reference from the code: settings, commands, metrics, events and HTTP. `make docs` runs it.

With `--check` it writes nothing, and exits 1 when a page is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
from pydantic import ByteSize, SecretStr

from events.reading import MODELS
from events.reasons import Reason
from service.cli import app
from service.settings import PREFIX, Settings
from service.telemetry.metrics import REGISTRY
from service.web.api.app import openapi_document

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
SETTINGS_INTRO = """\
Settings are environment variables, or the same names in a file `.env`, or files in the folder
`LEVELSYNC_SECRETS_DIR`. A command names a value that it cannot use, and ends with exit code 2. It warns about a
`LEVELSYNC_` name that is not a setting, and suggests the nearest known name. Write durations as `250ms`, `10s`, `5m`,
`6h` or `1d`."""
COMMANDS_INTRO = """\
Commands that read accept `--json` and then print one JSON document on stdout. Exit codes: 0 done, 1 the answer is no
(a difference, a failed check, a stopped run), 2 wrong use, 3 a component cannot be reached or is not ready, 70 a
defect of levelsync, 130 Ctrl-C.
`levelsync --install-completion` installs completion in the shell."""
METRICS_INTRO = """\
`/metrics` returns these metrics as Prometheus text. `type` is the CloudEvents type. `outcome` is `applied`,
`created`, `equal`, `ahead`, `superseded` or `dead_lettered`. `result` is the status of a run. Gauges that are read
from the database are the same in every process, so use `max` in a dashboard, not `sum`."""
EVENTS_INTRO = """\
Events are CloudEvents 1.0 in the Kafka protocol binding. The key is the user's id. `levelsync schema --out DIR`
writes the JSON Schemas and an AsyncAPI 3 document. [contract.md](../contract.md) describes the envelope."""
HTTP_INTRO = """\
All endpoints are below `/api/v1/licenses/admin/sync`. `/docs` and `/openapi.json` of a running service describe
requests and answers. [http-api.md](../http-api.md) explains tokens, roles, pages and errors."""
_BASE = "/api/v1/licenses/admin/sync"
NOTICE = "<!-- Written by scripts/reference.py (make docs) from {source}. Change it there. -->"


def settings() -> str:
    """Return the page of settings, each with its default and its meaning."""
    return _page(
        "Settings",
        "service/settings.py",
        SETTINGS_INTRO,
        _table(
            ("variable", "default", "meaning"),
            (
                (f"`{PREFIX}{name.upper()}`", _default(field.default), _one_line(field.description or ""))
                for name, field in Settings.model_fields.items()
            ),
        ),
    )


def _default(value: Any) -> str:
    if value is None:
        return "none"
    match value:
        case SecretStr():
            shown = value.get_secret_value()
        case bool():
            shown = str(value).lower()
        case timedelta():
            shown = _duration(value)
        case ByteSize():
            shown = value.human_readable(decimal=True, separator="").replace(".0", "")
        case _:
            shown = str(value)
    return f"`{shown}`"


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds * 1000:g}ms"


def commands() -> str:
    """Return the page of commands, each with its arguments and options."""
    root: Any = typer.main.get_command(app)
    parts = [part for name, command in root.commands.items() for part in _command(f"levelsync {name}", command)]
    return _page(
        "Commands",
        "service/cli",
        COMMANDS_INTRO,
        *parts,
    )


def _command(name: str, command: Any) -> Iterator[str]:
    if children := getattr(command, "commands", {}):
        for child, inner in children.items():
            yield from _command(f"{name} {child}", inner)
        return
    yield f"## {name}\n\n{inspect.cleandoc(command.help or '').split(chr(12))[0]}"
    rows = [_parameter(one) for one in command.params if not one.hidden and one.name != "help"]
    if rows:
        yield _table(("argument or option", "default", "meaning"), rows)


def _parameter(one: Any) -> tuple[str, str, str]:
    is_argument = one.param_type_name == "argument"
    names = (one.metavar or one.name or "").upper() if is_argument else ", ".join([*one.opts, *one.secondary_opts])
    default = "required" if one.required else _default_of_parameter(one)
    return f"`{names}`", default, _one_line(getattr(one, "help", "") or "")


def _default_of_parameter(one: Any) -> str:
    if isinstance(getattr(one, "show_default", None), str):
        return str(one.show_default)
    nothing = callable(one.default) or (not one.default and one.default is not False)
    return "none" if nothing else f"`{str(one.default).lower()}`"


def metrics() -> str:
    """Return the page of metrics, each with its kind, labels and meaning."""
    rows = []
    for collector in REGISTRY._collector_to_names:  # noqa: SLF001 - there is no public list of collectors
        (metric,) = collector.describe()  # type: ignore[attr-defined]  # every collector of ours has it
        labels = getattr(metric if hasattr(metric, "_labelnames") else collector, "_labelnames")  # noqa: B009 - private
        name = metric.name + ("_total" if metric.type == "counter" else "")
        rows.append(
            (f"`{name}`", metric.type, ", ".join(f"`{label}`" for label in labels), _one_line(metric.documentation))
        )
    return _page(
        "Metrics",
        "service/telemetry/metrics.py",
        METRICS_INTRO,
        _table(("metric", "kind", "labels", "meaning"), rows),
    )


def contract() -> str:
    """Return the page of events with their fields, and of the dead-letter reasons."""
    parts = []
    for model in MODELS:
        schema = model.model_json_schema()
        fields = (
            (f"`{name}`", "yes" if name in schema.get("required", []) else "no", _one_line(_description(form)))
            for name, form in schema["properties"].items()
        )
        heading = f"## {model.TYPE}\n\n{inspect.cleandoc(model.__doc__ or '')}\n\nTopic: `{model.TOPIC}`."
        parts += [heading, _table(("field", "required", "meaning"), fields)]
    reasons = ((f"`{reason.value}`", _one_line(text)) for reason, text in _documented(Reason))
    parts.append("## Dead-letter reasons\n\n" + _table(("reason", "means"), reasons))
    return _page(
        "Events",
        "events",
        EVENTS_INTRO,
        *parts,
    )


def _description(form: dict[str, Any]) -> str:
    """Return the description of a field, also when only the inner type of a union with null has it."""
    inner = next((one["description"] for one in form.get("anyOf", []) if "description" in one), "")
    return str(form.get("description", inner))


def _documented(kind: type[Reason]) -> Iterator[tuple[Reason, str]]:
    """Yield each member of an enum with the string below it in the source."""
    names = re.findall(r'^    (\w+) = "\w+"\n    """(.+?)"""$', inspect.getsource(kind), re.MULTILINE)
    yield from ((kind[name], text) for name, text in names)


def http() -> str:
    """Return the page of the endpoints of the admin API."""
    rows = [
        (f"`{method.upper()} {path.removeprefix(_BASE)}`", _one_line(operation["description"].split("\n\n")[0]))
        for path, operations in openapi_document()["paths"].items()
        if path.startswith(_BASE)
        for method, operation in operations.items()
    ]
    return _page("HTTP", "service/web/api", HTTP_INTRO, _table(("endpoint", "does"), rows))


def _page(title: str, source: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTICE.format(source=source), *parts]) + "\n"


def _table(columns: tuple[str, ...], rows: Any) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "commands.md": commands,
    "metrics.md": metrics,
    "events.md": contract,
    "http.md": http,
}


def main() -> int:
    """Write the pages that are out of date, or only name them with --check."""
    check = "--check" in sys.argv
    stale = {name: text for name, make in PAGES.items() if _read(name) != (text := make())}
    for name, text in stale.items():
        print(f"docs/reference/{name} {'is out of date: run make docs' if check else 'written'}")
        if not check:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(text, encoding="utf-8")
    return 1 if stale and check else 0


def _read(name: str) -> str:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
