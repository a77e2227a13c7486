"""Print the part of requirements.lock that some extras of this project need: `python scripts/locked.py service page`.

The lock lists, below each package, the packages that require it. This script starts with the requirements of the extras
and adds everything that they require. It prints the packages with their hashes, for
`pip install --require-hashes --no-deps`.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def locked(lock: str, requirements: list[str]) -> str:
    """Return the blocks of a lock that these requirements need, in the lock's order.

    Raises:
        LookupError: a requirement is not in the lock; run `make lock`.
    """
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    by_name = {_name(block): block for block in blocks}
    required_by = {name: {_normalized(via) for via in _requirers(block)} for name, block in by_name.items()}
    needed, new = set[str](), {_name(requirement) for requirement in requirements}
    if missing := new - by_name.keys():
        raise LookupError(f"requirements.lock lacks {', '.join(sorted(missing))}: run `make lock`")
    while new:
        needed |= new
        new = {name for name, parents in required_by.items() if parents & new} - needed
    return "".join(block for name, block in by_name.items() if name in needed)


def _requirers(block: str) -> list[str]:
    return re.findall(r"^    #(?: via)? +([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?$", block, flags=re.MULTILINE)


def _name(requirement: str) -> str:
    return _normalized(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Print the lock of the extras that the command line names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [requirement for extra in sys.argv[1:] for requirement in project["optional-dependencies"][extra]]
    print(locked((ROOT / "requirements.lock").read_text(encoding="utf-8"), [*project["dependencies"], *extras]))


if __name__ == "__main__":
    main()
