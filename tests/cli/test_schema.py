"""`levelsync schema`."""

import json
from pathlib import Path

from events import MODELS
from tests.support.process import levelsync


def test_every_event_has_its_schema_and_all_are_in_one_asyncapi_document(tmp_path: Path) -> None:
    """The command prints what it wrote, and makes the folder."""
    folder = tmp_path / "new" / "schemas"
    run = levelsync("schema", "--out", str(folder))
    assert run.returncode == 0, run.stderr
    written = sorted(folder.iterdir())
    assert sorted(map(str, written)) == sorted(run.stdout.split())
    names = {f"{model.TYPE}.schema.json" for model in MODELS} | {"asyncapi.json", "openapi.json"}
    assert {path.name for path in written} == names
    documents = {path.name: json.loads(path.read_text()) for path in written}
    assert documents["asyncapi.json"]["asyncapi"].startswith("3.")
    assert documents["openapi.json"]["openapi"].startswith("3.1")


def test_a_folder_that_cannot_be_made_is_wrong_use(tmp_path: Path) -> None:
    """One sentence that names it."""
    (tmp_path / "file").write_text("")
    run = levelsync("schema", "--out", str(tmp_path / "file" / "below"))
    assert run.returncode == 2
    assert str(tmp_path) in run.stderr
