"""deploy/ as data: its alerts, its dashboard's queries, and the metrics that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.house.compose import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "levelsync.json"
_NAME = re.compile(r"\b(?:levelsync[:_][a-z0-9_:]+|up)\b")
_STRING = re.compile(r'"[^"]*"')


def rules() -> list[dict[str, Any]]:
    """Give every rule: those that record and those that alert."""
    found = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Give the alerts by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    """Give the names that rules record."""
    return {rule["record"] for rule in rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    """Give the dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> Iterator[dict[str, Any]]:
    """Go through the dashboard's panels that show something, those of folded rows included."""
    for panel in dashboard()["panels"]:
        for one in (panel, *panel.get("panels", ())):
            if one["type"] not in {"row", "text"}:
                yield one


def dashboard_queries() -> list[str]:
    """Give every query of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def names(query: str) -> set[str]:
    """Give the metrics that a query names; what stands in quotes is no name."""
    return set(_NAME.findall(_STRING.sub('""', query)))
