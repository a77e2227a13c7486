"""The README's tables against the code."""

from __future__ import annotations

import ast
import re
from types import FunctionType
from typing import Any

import pytest

from events import ProgressLeveledUp, read
from service.metrics import REGISTRY
from service.settings import PREFIX, Settings, load_settings
from tests.house.compose import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
_SETTING_ROW = re.compile(rf"^\| `({PREFIX}\w+)` \| (.+?) \|", re.MULTILINE)
_METRIC_ROW = re.compile(r"^\| `(levelsync_\w+)` \| (\w+) \|(.*?)\|", re.MULTILINE)
SETTINGS = dict(_SETTING_ROW.findall(README))


def test_every_setting_is_in_the_readme_and_nothing_else() -> None:
    """The table is whole, and no other line names a setting that does not exist."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", README))
    assert set(SETTINGS) == known
    assert {name for name in named if not name.startswith(f"{PREFIX}TEST_")} == known


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_in_the_readme_is_the_real_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting a variable to its documented default changes nothing."""
    default = Settings.model_fields[name.removeprefix(PREFIX).lower()].default
    if default is None:
        assert not SETTINGS[name].startswith("`")  # words: there is no value that stands for "not set"
        return
    for other in SETTINGS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.chdir(ROOT / "tests")  # where there is no .env
    monkeypatch.setenv(name, SETTINGS[name].strip("`"))
    assert getattr(load_settings(), name.removeprefix(PREFIX).lower()) == default


def test_every_metric_is_in_the_readme_with_its_labels_and_nothing_else() -> None:
    """A dashboard can be built from the README."""
    documented = {name: (kind, labels.replace("`", "").strip()) for name, kind, labels in _METRIC_ROW.findall(README)}
    assert documented == _declared_metrics()


async def test_the_publishers_lines_work() -> None:
    """Somebody who copies them publishes an event that levelsync takes."""
    (lines,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    sent: list[Any] = []

    class Producer:
        """Takes what aiokafka's producer takes."""

        async def send_and_wait(
            self, topic: str, value: bytes, key: bytes | None, headers: list[tuple[str, bytes]]
        ) -> None:
            sent.append((key, read(topic, value, headers, 0)))

    await _run(lines, {"producer": Producer()})
    ((key, received),) = sent
    expected = ProgressLeveledUp(user_id=42, specialization="PLAYER", to_level=5)
    assert (key, received.source) == (b"42", "/app/progress")
    assert (type(received.event), received.event.model_dump()) == (ProgressLeveledUp, expected.model_dump())


async def _run(lines: str, names: dict[str, Any]) -> None:
    """Run lines that await at their top level."""
    code = compile(lines, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await FunctionType(code, names)()


def _declared_metrics() -> dict[str, tuple[str, str]]:
    declared = {}
    for collector in set(REGISTRY._collector_to_names):
        (metric,) = collector.describe()  # type: ignore[attr-defined]  # every collector of ours has it
        labels = getattr(metric if hasattr(metric, "_labelnames") else collector, "_labelnames")  # noqa: B009 - private
        name = metric.name + ("_total" if metric.type == "counter" else "")
        declared[name] = (metric.type, ", ".join(labels))
    return declared
