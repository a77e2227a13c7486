"""`levelsync demo`: the main job from start to finish."""

import re
from pathlib import Path

from tests.support.process import levelsync


def test_the_demo_ends_with_tables_that_agree(tmp_path: Path) -> None:
    """It shows drift before and none after, the history, a dead letter, and that repetition changes nothing."""
    run = levelsync("demo", cwd=tmp_path, env={"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert run.returncode == 0, run.stdout + run.stderr
    before, rest = run.stdout.split("levelsync raises the other table")
    after, damaged = rest.split("Somebody edits the tables by hand")
    assert " NO " in before
    assert " NO " not in after
    for part in ("5 → 6", "ProgressLeveledUp /app/progress sample-", "invalid:", "no row changed"):
        assert part in after
    assert 'outcome="created",type="progress.leveled-up.v1"' in damaged
    assert ", 0 differ" in damaged
    _assert_repaired(damaged)
    assert "\x1b" not in run.stdout
    assert list(tmp_path.iterdir()) == []


def _assert_repaired(shown: str) -> None:
    """Check that the dry run finds four damaged pairs, the run heals them, and the next dry run finds none."""
    damage, found, healed, nothing = re.split(r"A dry run finds|The same for real|A second dry run", shown)
    assert damage.count(" NO ") == 4
    assert found.count(" confirmed ") == 4
    assert (_count(found, "mismatched"), _count(found, "missing license"), _count(found, "healed")) == (3, 1, 0)
    assert _count(healed, "healed") == 4
    assert " NO " not in healed
    assert healed.count(" reconcile ") == 4  # a row of history each
    assert _count(nothing, "scanned") == _count(nothing, "matching")


def _count(report: str, name: str) -> int:
    match = re.search(rf"^  {name} +(\d+)$", report, re.MULTILINE)
    assert match, report
    return int(match[1])
