"""The first dry run on the newest database, with thousands of licenses without progress."""

from __future__ import annotations

from uuid import UUID

import pytest

from service.cli.reconcile import is_no, show_report
from service.reconcile import steps
from service.settings import Settings
from service.store.engine import make_engine
from tests.support import application
from tests.support.runs import NoTopics, OneWorker
from tests.support.states import THOUSANDS, E, State


@pytest.mark.parametrize("state", [E], ids=str)
async def test_a_dry_run_confirms_only_when_everything_is_applied_and_the_breaker_stops_a_run(
    migrated: str,
    settings: Settings,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While events wait in the topics, nothing is confirmed. Drift is reported by its kind."""
    await application.execute(migrated, THOUSANDS)
    engine = make_engine(settings)
    missing = 5000 + 100 * len(state.specializations)
    monkeypatch.setattr(steps, "CATCH_UP_SECONDS", 0.1)
    never_read = NoTopics({"progress.leveled-up-0": 12})
    one_worker = OneWorker(engine, settings, never_read)
    report = await one_worker.run(direction="highest", dry_run=True)
    assert report["unconfirmed_by_kind"] == {
        "mismatched": 5 * len(state.specializations),
        "missing_progress": missing,
        "unknown_specialization": 1,
    }
    assert report["counts"]["unconfirmed"] == sum(report["unconfirmed_by_kind"].values())
    assert report["counts"]["mismatched"] == report["counts"]["missing_progress"] == report["counts"]["healed"] == 0
    run = await one_worker.read(UUID(report["run_id"]))
    assert is_no(run)
    show_report(run)
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing is confirmed" in said
    assert "mismatched 20 missing progress 5,400 unknown specialization 1" in said

    monkeypatch.undo()
    one_worker = OneWorker(engine, settings)  # no event waits now
    report = await one_worker.run(direction="highest", dry_run=True)
    assert report["counts"]["missing_progress"] == missing
    assert (report["status"], report["would_stop"], report["unconfirmed_by_kind"]) == ("completed", True, {})
    stopped = await one_worker.run(direction="highest", dry_run=False)
    assert (stopped["status"], stopped["counts"]["healed"]) == ("stopped_by_breaker", 0)
    forced = await one_worker.run(direction="highest", dry_run=False, force=True)
    assert forced["counts"]["healed"] == 5000 + 105 * len(state.specializations)
    await engine.dispose()
