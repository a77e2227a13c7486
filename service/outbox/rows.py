"""Events of the outbox as the relay reads them, and the waves in which they may leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from service.kafka.headers import Header, Stored, can_be_sent, header_from_json


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One event of the outbox, itself and not its equal: it can be a key whatever it holds."""

    id: int
    topic: str
    key: bytes | None
    value: bytes | None
    """None for a tombstone that was a dead letter and is replayed."""
    headers: list[Header]


def headers_of(stored: Iterable[Stored]) -> list[Header]:
    """A row's headers, those with a name that no producer can write left out: none of them has a meaning here."""
    return [header for header in map(header_from_json, stored) if can_be_sent(header)]


def waves(rows: Iterable[Row]) -> list[list[Row]]:
    """Cut rows into waves: none holds two of one topic and key, and those of one key stand in waves in their order.

    A wave leaves when the one before has arrived whole, so that nothing of a key overtakes what came before it,
    whatever part of a wave fails. Rows without a key have no order.
    """
    met: Counter[tuple[str, bytes]] = Counter()
    cut: list[list[Row]] = []
    for row in rows:
        number = 0
        if row.key is not None:
            number = met[row.topic, row.key]
            met[row.topic, row.key] += 1
        if number == len(cut):
            cut.append([])
        cut[number].append(row)
    return cut
