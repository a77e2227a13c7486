"""docs/architecture.md and docs/migrations.md agree with the code."""

from __future__ import annotations

import re

from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.support.repository import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MIGRATIONS = (ROOT / "docs" / "migrations.md").read_text(encoding="utf-8")
_CALL = re.compile(r"^\| \d \| `(?:\w+\.)?(\w+)` in `(\S+)` \|", re.MULTILINE)


def test_the_document_lists_every_revision_in_order_and_names_the_head() -> None:
    scripts = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    table = MIGRATIONS.split("| revision | does |")[1].split("\n\n")[0]
    (head,) = re.findall(r"`alembic current` shows levelsync's own head,\s+`(\w+)`", MIGRATIONS)
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == revisions
    assert head == revisions[-1]


def test_the_walk_of_a_record_is_six_calls_that_exist() -> None:
    """The seventh call of the walk is in PostgreSQL."""
    calls = _CALL.findall(ARCHITECTURE)
    sources = {file: (ROOT / "service" / file).read_text(encoding="utf-8") for _, file in calls}
    assert len(calls) == 6  # the seventh is in PostgreSQL
    assert [(name, file) for name, file in calls if not re.search(rf"def {name}\(", sources[file])] == []


def test_every_file_in_the_walk_exists() -> None:
    named = set(re.findall(r"\b((?:apply|core|stream)/\w+\.py)\b", ARCHITECTURE))
    assert {file for file in named if not (ROOT / "service" / file).exists()} == set()


def test_every_part_of_the_service_is_in_the_layout() -> None:
    layout = ARCHITECTURE.split("| where | what |")[1].split("\n\n")[0]
    parts = {path.name for path in (ROOT / "service").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert {part for part in parts if f"{part}/`" not in layout and f"{part}`" not in layout} == set()
