"""How much is measured. The defaults are what BENCH.md shows; smaller ones prove that the harness runs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

SYSTEMS = ("best", "default", "usual", "floor")
"""Debezium in two settings, the usual handler, and levelsync's writes without Kafka."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of events, rows and probes."""

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
    """An option for each size."""
    add = parser.add_argument
    add("--events", type=int, default=300_000, help="records of a drain; a sixth as many users")
    add("--rounds", type=int, default=3, help="every system of a part is measured once a round, in turn")
    add("--backlog", type=int, default=3_000_000, help="records of the long backlog")
    add("--probes", type=int, default=2_000, help="events whose delay is measured at 1,000 events/s")
    add("--slow-probes", type=int, default=60, help="the same at one event a second")
    add("--pairs", type=_numbers, default=(1_000_000, 5_000_000), help="pairs of the scans, with commas between")
    add("--healed", type=int, default=100_000, help="drifted pairs to heal, of ten times as many")
    add("--rows", type=int, default=10_000_000, help="license rows in the large table")
    add("--calls", type=int, default=3_000, help="batches of one and of five events")
    add("--against", type=_words, default=SYSTEMS, help=f"what the drain is compared with, of {','.join(SYSTEMS)}")


def read_options(given: argparse.Namespace) -> Sizes:
    """The sizes of a command line."""
    return Sizes(**{name: getattr(given, name) for name in Sizes.__dataclass_fields__})


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)
