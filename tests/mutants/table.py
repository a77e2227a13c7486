"""The mutants: the line of the service that each changes, and the test that must then fail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = "tests/mutants/test_survivors.py"


@dataclass(frozen=True)
class Mutant:
    """`search`, which occurs once in `file`, is replaced; `test` is a function of `TESTS`."""

    file: str
    search: str
    replace: str
    test: str

    def apply(self, root: Path) -> None:
        """Change a copy of the service.

        Raises:
            LookupError: `search` does not occur exactly once. Write the mutant again for the changed code.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.search) != 1:
            raise LookupError(f"{self.test}: {self.file} has {self.search!r} {text.count(self.search)} times")
        path.write_text(text.replace(self.search, self.replace), encoding="utf-8")


MUTANTS = (
    Mutant(
        "service/apply/rows.py",
        "decided_at = greatest(f.decided_at, excluded.decided_at)",
        "decided_at = excluded.decided_at",
        "test_the_time_of_a_fence_never_goes_back",
    ),
    Mutant(
        "service/reconcile/confirm.py",
        'if r.cluster_id in {"", now.cluster_id} and not',
        "if not",
        "test_positions_of_another_cluster_are_not_caught_up",
    ),
    Mutant(
        "service/reconcile/steps.py",
        "if await self._caught_up(conn, run) or self._timed_out(run):",
        "if True:",
        "test_a_run_does_not_scan_before_the_appliers_have_caught_up",
    ),
    Mutant(
        "service/reconcile/confirm.py",
        "licenses = await _levels(conn, sql.licenses_of_pairs(lock), suspects)",
        'licenses = await _levels(conn, sql.licenses_of_pairs("none"), suspects)',
        "test_a_confirmation_waits_for_whoever_writes_the_license",
    ),
    Mutant(
        "service/stream/positions.py",
        "    for partition in partitions:\n",
        "    for partition in move.positions:\n",
        "test_rows_that_stay_are_checked_too",
    ),
    Mutant(
        "service/apply/call.py",
        "partitions = sorted(call.expected)",
        "partitions = sorted(call.positions)",
        "test_a_batch_checks_the_rows_that_stay_too",
    ),
    Mutant(
        "service/stream/consumer.py",
        "Batch(records, dict(self._expected), moved,",
        "Batch(records, {tp: self._expected[tp] for tp in moved}, moved,",
        "test_a_consumer_has_every_row_checked",
    ),
    Mutant(
        "service/stream/consumer.py",
        "await self._consumer._idle.wait()",
        "pass",
        "test_a_rebalance_waits_for_the_batch_in_hand",
    ),
    Mutant(
        "service/stream/consumer.py",
        "        await self._consumer._commit()  # noqa: SLF001 - as above\n",
        "",
        "test_a_revocation_commits_what_is_applied",
    ),
    Mutant(
        "service/stream/positions.py",
        """            stored = await read_positions(conn, committed)
            log_ends = await read_log_ends()
""",
        """            log_ends = await read_log_ends()
            stored = await read_positions(conn, committed)
""",
        "test_a_row_that_moves_on_while_a_consumer_starts_is_no_new_topic",
    ),
)
