"""The sizes of the benchmarks. BENCH.md uses the defaults; smaller sizes show that the code runs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

SYSTEMS = ("best", "default", "usual", "floor")
"""Debezium with two settings, the usual handler, and levelsync's writes without Kafka."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of events, rows, probes and rounds."""

    events: int
    rounds: int
    backlog: int
    probes: int
    slow_probes: int
    pairs: tuple[int, ...]
    healed: int
    rows: int
    calls: int
    against: tuple[str, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each size."""
    add = parser.add_argument
    add("--events", type=int, default=300_000, help="records of a drain, for a sixth as many users")
    add("--rounds", type=int, default=3, help="rounds; each round measures every system of a part once")
    add("--backlog", type=int, default=3_000_000, help="records of the long backlog")
    add("--probes", type=int, default=2_000, help="events whose delay is measured at 1,000 events/s")
    add("--slow-probes", type=int, default=60, help="events whose delay is measured at one event a second")
    add("--pairs", type=_numbers, default=(1_000_000, 5_000_000), help="pairs of the scans, separated by commas")
    add("--healed", type=int, default=100_000, help="pairs to heal, one in ten of all pairs")
    add("--rows", type=int, default=10_000_000, help="license rows in the large table")
    add("--calls", type=int, default=3_000, help="batches of one and of five events")
    add("--against", type=_words, default=SYSTEMS, help=f"the other systems of the drain, from {','.join(SYSTEMS)}")


def read_options(given: argparse.Namespace) -> Sizes:
    """Return the sizes of a command line."""
    return Sizes(**{name: getattr(given, name) for name in Sizes.__dataclass_fields__})


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)
