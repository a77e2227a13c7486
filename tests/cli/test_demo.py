"""`levelsync demo`: the main job, as a newcomer sees it first."""

from pathlib import Path

from tests.cli.command import levelsync


def test_the_demo_ends_with_tables_that_agree(tmp_path: Path) -> None:
    """Exit 0; it shows drift before and none after, history, a dead letter, that repetition changes nothing."""
    run = levelsync("demo", cwd=tmp_path, env={"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert run.returncode == 0, run.stdout + run.stderr
    before, after = run.stdout.split("levelsync raises the other table")
    assert " NO " in before
    assert " NO " not in after
    for part in ("5 → 6", "ProgressLeveledUp /app/progress sample-", "invalid:", "not one row changed", ", 0 differ"):
        assert part in after
    assert 'outcome="created",type="progress.leveled-up.v1"' in after
    assert "\x1b" not in run.stdout
    assert list(tmp_path.iterdir()) == []
