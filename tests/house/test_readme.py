"""README, architecture and laws: the README is one page, and all three agree with the code."""

from __future__ import annotations

import ast
import re
from types import FunctionType
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory

from events import ProgressLeveledUp
from events import read as read_event
from tests.support.repository import ROOT, files, read

README, ARCHITECTURE, MIGRATIONS = read("README.md"), read("docs/architecture.md"), read("docs/migrations.md")
LAWS = re.findall(r"^## Law (\d+): (.+)$", read("docs/laws.md"), re.MULTILINE)
_CITED = re.compile(r"\blaws? (\d+(?:(?:, | and | to |, and )\d+)*)", re.IGNORECASE)


def test_the_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= 130
    assert len(README.split()) <= 900


def test_the_readmes_promises_carry_the_numbers_of_the_laws() -> None:
    promises = re.findall(r"^(\d)\. \*\*(.+?)\.\*\*", README, re.MULTILINE)
    assert [(number, title.lower()) for number, title in promises] == [(n, title.lower()) for n, title in LAWS]
    assert [number for number, _ in LAWS] == [str(number) for number in range(1, 10)]


def test_every_law_that_a_file_cites_exists() -> None:
    paths = files("*.py", "*.md", "*.sql", "*.yml", "*.toml")
    matches = ((path, match[1]) for path in paths for match in _CITED.finditer(read(path)))
    cited = {(path, number) for path, numbers in matches for number in re.findall(r"\d+", numbers)}
    assert len(cited) > 100
    assert {(path, number) for path, number in cited if number not in dict(LAWS)} == set()


async def test_the_publishers_lines_work() -> None:
    (lines,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    sent: list[Any] = []

    class Producer:
        """A stand-in for aiokafka's producer."""

        async def send_and_wait(self, topic: str, value: bytes, key: bytes, headers: list[tuple[str, bytes]]) -> None:
            sent.append((key, read_event(topic, value, headers, 0)))

    code = compile(lines, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await FunctionType(code, {"producer": Producer()})()
    ((key, received),) = sent
    expected = ProgressLeveledUp(user_id=42, specialization="PLAYER", to_level=5)
    assert (key, received.source) == (b"42", "/app/progress")
    assert (type(received.event), received.event.model_dump()) == (ProgressLeveledUp, expected.model_dump())


def test_the_document_lists_every_revision_in_order_and_names_the_head() -> None:
    scripts = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    table = MIGRATIONS.split("| revision | does |")[1].split("\n\n")[0]
    (head,) = re.findall(r"`alembic current` shows levelsync's own head,\s+`(\w+)`", MIGRATIONS)
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == revisions
    assert head == revisions[-1]


def test_the_walk_of_a_record_is_six_calls_that_exist() -> None:
    calls = re.findall(r"^\| \d \| `(?:\w+\.)?(\w+)` in `(\S+)` \|", ARCHITECTURE, re.MULTILINE)
    assert len(calls) == 6
    assert [(name, file) for name, file in calls if not re.search(rf"def {name}\(", read(f"service/{file}"))] == []


def test_every_file_in_the_walk_exists() -> None:
    named = set(re.findall(r"\b((?:apply|core|stream)/\w+\.py)\b", ARCHITECTURE))
    assert {file for file in named if not (ROOT / "service" / file).exists()} == set()


def test_every_part_of_the_service_is_in_the_layout() -> None:
    layout = ARCHITECTURE.split("| where | what |")[1].split("\n\n")[0]
    parts = {path.name for path in (ROOT / "service").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert {part for part in parts if f"{part}/`" not in layout and f"{part}`" not in layout} == set()
