"""`python -m tests.mutants`: apply each mutant to a copy of the service, and check that its test fails.

Exit codes: 0 every mutant is killed, 1 one survived, 3 the tests cannot judge (they fail without a mutant).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.table import MUTANTS, ROOT, TESTS, Mutant
from tests.support.provider import Provider, choose, running

_COPIED = ("service", "events", "tests", "alembic", "examples", "deploy", "docs", "alembic.ini", "pyproject.toml")
_PASSED, _FAILED = 0, 1
_AT_ONCE = 2


def main() -> int:
    """Judge all mutants, two at a time, each in its own copy, all of them on the same servers."""
    with tempfile.TemporaryDirectory(prefix="levelsync-mutants-") as name, running(choose(os.environ)) as servers:
        judge = Judge(Path(name), servers)
        whole = judge.run(Path(name) / "unchanged", None)
        if whole.returncode != _PASSED:
            print(f"the tests fail without a mutant:\n{whole.stdout}", file=sys.stderr)  # noqa: T201 - a program
            return 3
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            codes = list(pool.map(judge.judge, range(len(MUTANTS))))
    return 3 if set(codes) - {_PASSED, _FAILED} else int(_PASSED in codes)


@dataclass(frozen=True)
class Judge:
    """Runs tests on copies of the repository, below `folder`."""

    folder: Path
    servers: Provider

    def judge(self, number: int) -> int:
        """Run the test of one mutant; returns pytest's exit code."""
        mutant = MUTANTS[number]
        done = self.run(self.folder / str(number), mutant)
        verdict = {_PASSED: "SURVIVED", _FAILED: "killed"}.get(done.returncode, f"not judged\n{done.stdout}")
        print(f"{mutant.test}: {verdict}", flush=True)  # noqa: T201 - a program
        return done.returncode

    def run(self, folder: Path, mutant: Mutant | None) -> subprocess.CompletedProcess[str]:
        """Run the mutant's test, or all of them, in a copy of the repository."""
        for name in _COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else _copy_file)(source, folder / name)
        if mutant is not None:
            mutant.apply(folder)
        given = {
            "PYTHONPATH": str(folder),
            "LEVELSYNC_TEST_KAFKA": self.servers.kafka.bootstrap_servers,
            "LEVELSYNC_TEST_DATABASE_URL": self.servers.postgres.url,
        }
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
        return subprocess.run(  # noqa: S603 - our own tests
            [*command, f"{TESTS}::{mutant.test}" if mutant else TESTS],
            cwd=folder,
            env=os.environ | given,
            capture_output=True,
            text=True,
            check=False,
        )


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main())
