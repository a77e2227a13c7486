"""Compare the tables after a drain with the model: the rate of a wrong drain does not count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.load import Records
from service.settings import Settings
from service.store.engine import make_engine
from tests.support.model import Model
from tests.support.records import MAXIMUM
from tests.support.tables import history, licenses


@dataclass(frozen=True)
class Comparison:
    """The wrong levels, the number of pairs, the rows of the history, and whether all of them are the model's."""

    wrong_levels: int
    pairs: int
    history_rows: int
    history_equal: bool

    @property
    def right(self) -> bool:
        """Return whether nothing differs from the model."""
        return self.wrong_levels == 0 and self.history_equal


async def check(settings: Settings, model: Model) -> Comparison:
    """Compare every level and every history row (levels, time, reason) with the model."""
    engine = make_engine(settings)
    found, rows = await licenses(engine), await history(engine)
    await engine.dispose()
    wrong = sum(found.get(pair) != model.licenses.get(pair) for pair in found.keys() | model.licenses.keys())
    equal = sorted(rows, key=_by_pair) == sorted(model.history, key=_by_pair)
    return Comparison(wrong, len(model.licenses), len(rows), equal)


def model_of(records: Records) -> Model:
    """Return the expected tables after all records, each partition in its order."""
    model = Model(MAXIMUM, set(range(1, records.users + 1)))
    for meant in records.partitions.values():
        for one in meant:
            model.apply(one)
    return model


def _by_pair(row: Any) -> Any:
    return row[0]
