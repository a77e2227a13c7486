"""Whether a drain ended in the tables of the model: a fast drain that is wrong has no speed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from service.database.engine import make_engine
from service.settings import Settings
from tests.laws.load import Slot, model_of
from tests.laws.model import Meant
from tests.laws.tables import history, licenses


async def check(settings: Settings, slots: dict[Slot, list[Meant]], users: int) -> dict[str, Any]:
    """Compare levels, history and dead letters with what the records mean."""
    model = model_of(slots, users)
    engine = make_engine(settings)
    found, rows = await licenses(engine), await history(engine)
    async with engine.connect() as conn:
        letters = int((await conn.execute(text("SELECT count(*) FROM levelsync.dead_letters"))).scalar_one())
    await engine.dispose()
    wrong = sum(found.get(pair) != model.licenses.get(pair) for pair in found.keys() | model.licenses.keys())
    equal = sorted(rows, key=_by_pair) == sorted(model.history, key=_by_pair)
    return {
        "pairs": len(model.licenses),
        "wrong_levels": wrong,
        "history_rows": len(rows),
        "history_equal": equal,
        "dead_letters": letters,
        "correct": wrong == 0 and equal and letters == 0,
    }


def _by_pair(row: Any) -> Any:
    return row[0]
