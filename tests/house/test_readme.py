"""The README is one page, and its lines work."""

from __future__ import annotations

import ast
import re
from types import FunctionType
from typing import Any

from events import ProgressLeveledUp, read
from tests.support.repository import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= 130
    assert len(README.split()) <= 900


def test_the_readmes_promises_carry_the_numbers_of_the_laws() -> None:
    """Promise 5 of the README is law 5 of docs/laws.md."""
    promises = re.findall(r"^(\d)\. \*\*(.+?)\.\*\*", README, re.MULTILINE)
    laws = re.findall(r"^## Law (\d): (.+)$", (ROOT / "docs" / "laws.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [(number, title.lower()) for number, title in promises] == [(n, t.lower()) for n, t in laws]
    assert [number for number, _ in laws] == [str(number) for number in range(1, 10)]


async def test_the_publishers_lines_work() -> None:
    (lines,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    sent: list[Any] = []

    class Producer:
        """A stand-in for aiokafka's producer."""

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
