"""Measure the parts that are named, print and store their tables; a run of all parts also writes BENCH.md.

`python -m bench [PART …]`. Exit codes: 0 measured, whatever the figures; 1 a system did not write the right tables;
3 Apache Kafka is not available.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys

from bench import keep
from bench.load import SEED
from bench.sizes import Sizes, add_options, read_options
from bench.table import as_markdown
from tests.support import apache_kafka

PARTS = (
    *("drain", "locks", "single", "five", "memory", "processes", "backlog", "delay"),
    *("scan", "heal", "beside", "growth", "killed", "api", "start"),
)


def main() -> int:
    """Run the named parts, or all parts."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    add_options(parser)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if reason := apache_kafka.unavailable():
        print(f"Apache Kafka is not available: {reason}", file=sys.stderr)
        return 3
    return _measure(given.parts or PARTS, read_options(given))


def _measure(parts: tuple[str, ...] | list[str], sizes: Sizes) -> int:
    print(f"seed {SEED}, {sizes}", file=sys.stderr)
    for part in parts:
        module = importlib.import_module(f"bench.parts.{part}")
        rows = asyncio.run(module.run(sizes))
        title = str(module.__doc__).splitlines()[0]
        keep.part(part, title, sizes, rows)
        print(f"\n## {title}\n\n{as_markdown(rows)}", flush=True)
    if set(parts) == set(PARTS):
        keep.document(PARTS)
    return 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    try:
        sys.exit(main())
    except AssertionError as wrong:
        sys.exit(f"WRONG: {wrong}")
    except KeyboardInterrupt:
        sys.exit(130)
