"""docker-compose.yml as data, with its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(\w+):\?([^}]*)\}")
_DEFAULTED = re.compile(r"\$\{(\w+):-([^}]*)\}")


def text() -> str:
    """Give the file as it is."""
    return FILE.read_text(encoding="utf-8")


def required_variables() -> dict[str, str]:
    """Each variable that has to come from outside, with the sentence that its absence prints."""
    return {match[1]: match[2] for match in _VARIABLE.finditer(text())}


def services(values: Mapping[str, str]) -> dict[str, Any]:
    """Give the services, with `values` for the variables that have to come from outside."""
    filled = _VARIABLE.sub(lambda match: values[match[1]], text())
    filled = _DEFAULTED.sub(lambda match: values.get(match[1], match[2]), filled)
    found: dict[str, Any] = yaml.safe_load(filled)["services"]
    return found


_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    headings = _HEADING.findall(prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(document: Path) -> str:
    return _CODE.sub("", document.read_text(encoding="utf-8"))
