"""Look up every package of requirements.lock in the advisories that PyPI serves; `make audit` runs it.

Exit codes: 0 all packages were looked up and have no advisories; 1 at least one has an advisory; 3 not audited, because
the advisories could not be reached or read.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"


def main() -> int:
    """Run pip-audit and return the exit code for its answer."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes", "--no-deps"]
    done = subprocess.run([*command, "--disable-pip", "--format=json"], capture_output=True, text=True, check=False)  # noqa: S603
    locked = len(re.findall(r"^\S+==", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE))
    return report(done.stdout, done.stderr, locked)


def report(answer: str, errors: str, locked: int) -> int:
    """Print what pip-audit found and return the exit code. An answer that lacks packages is not an audit."""
    try:
        found = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        print(f"NOT AUDITED: {(errors.strip().splitlines() or ['no answer'])[-1]}")
        return 3
    skipped = [package["name"] for package in found if "vulns" not in package]
    if skipped or not found:
        print(f"NOT AUDITED: {len(skipped) or locked} of {locked} packages could not be looked up: {skipped[:3]}")
        return 3
    known = [f"{package['name']} {package['version']}: {one['id']}" for package in found for one in package["vulns"]]
    summary = f"{len(found)} of {locked} locked packages apply here and were looked up: {len(known)} advisories"
    print(*known, summary, sep="\n")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
