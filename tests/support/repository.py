"""The repository's own files as data: docker-compose.yml, alert rules and the dashboard."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(\w+):\?([^}]*)\}")
_DEFAULTED = re.compile(r"\$\{(\w+):-([^}]*)\}")


def text() -> str:
    """Return the text of docker-compose.yml."""
    return FILE.read_text(encoding="utf-8")


def required_variables() -> dict[str, str]:
    """Return each variable that must be set, with the message that its absence prints."""
    return {match[1]: match[2] for match in _VARIABLE.finditer(text())}


def services(values: Mapping[str, str]) -> dict[str, Any]:
    """Return the services, with `values` for the variables."""
    filled = _VARIABLE.sub(lambda match: values[match[1]], text())
    filled = _DEFAULTED.sub(lambda match: values.get(match[1], match[2]), filled)
    found: dict[str, Any] = yaml.safe_load(filled)["services"]
    return found


def files(*patterns: str) -> list[str]:
    """Return the paths of the files that git knows or does not ignore, and that match one of the patterns."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 - fixed words


def read(path: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    headings = _HEADING.findall(prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(document: Path) -> str:
    return _CODE.sub("", document.read_text(encoding="utf-8"))


PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "levelsync.json"
_NAME = re.compile(r"\b(?:levelsync[:_][a-z0-9_:]+|up)\b")
_VARIABLE_OF_GRAFANA = re.compile(r"\$(?:instance|topic|specialization)\b")
_STRING = re.compile(r'"[^"]*"')


def rules() -> list[dict[str, Any]]:
    """Return every rule: those that record and those that alert."""
    found = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    """Return the names that rules record."""
    return {rule["record"] for rule in rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> Iterator[dict[str, Any]]:
    """Yield the dashboard's panels that show data, also those of folded rows."""
    for panel in dashboard()["panels"]:
        for one in (panel, *panel.get("panels", ())):
            if one["type"] not in {"row", "text"}:
                yield one


def dashboard_queries() -> list[str]:
    """Return every query of the dashboard, as Grafana sends it with all values of each variable."""
    return [_VARIABLE_OF_GRAFANA.sub(".*", target["expr"]) for panel in panels() for target in panel["targets"]]


def names(query: str) -> set[str]:
    """Return the metrics in a query. Text in quotes is not a name."""
    return set(_NAME.findall(_STRING.sub('""', query)))
