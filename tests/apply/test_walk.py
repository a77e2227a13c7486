"""How many functions a good record passes, from the poll that returns it to both commits."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import events
import service
from service.settings import Settings
from service.stream import consumer
from service.stream.consumer import LevelConsumer
from tests.support.applying import rise, running
from tests.support.tables import empty_tables, licenses
from tests.support.topics import publish
from tests.support.waiting import eventually

MOST_FUNCTIONS, MOST_MODULES, MOST_LINES = 12, 8, 40
_OURS = tuple(str(Path(package.__file__ or "").parent) for package in (events, service))


class Walk:
    """A profiler that records which of our functions one batch enters, in the task that polled it."""

    def __init__(self) -> None:
        self.functions: dict[CodeType, None] = {}
        self.ended = False
        self._task: asyncio.Task[Any] | None = None

    @property
    def opened_a_connection(self) -> bool:
        """Whether the pool had no connection for the batch, which is not the usual way."""
        return any(code.co_qualname.startswith("Connecting.") for code in self.functions)

    def __call__(self, frame: FrameType, what: str, value: object) -> None:
        code = frame.f_code
        if self._task is None:
            if what == "return" and code is LevelConsumer.getmany.__code__ and isinstance(value, dict):
                self._task = asyncio.current_task()
        elif not self.ended and asyncio.current_task() is self._task:
            if what == "call" and code.co_filename.startswith(_OURS) and not code.co_name.startswith("<"):
                self.functions[code] = None
            self.ended = what == "return" and code is LevelConsumer.finish.__code__ and value is None


@contextmanager
def walked() -> Iterator[Walk]:
    walk = Walk()
    sys.setprofile(walk)
    try:
        yield walk
    finally:
        sys.setprofile(None)


async def test_a_good_record_passes_few_functions_and_none_is_long_or_only_forwards(
    engine: AsyncEngine, topics: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 12 functions in 8 modules, of 40 lines each."""
    assert "progress.leveled-up" in topics
    monkeypatch.setattr(consumer, "COMMIT_EVERY", 0.0)
    await empty_tables(engine)

    async with running(settings):
        await publish(settings.kafka_bootstrap_servers, [rise(1, 3, 0)])
        await eventually(lambda: _stands_at(engine, 3))  # the consumer has read the curriculum, once
        for level in (4, 5, 6):
            with walked() as walk:
                await publish(settings.kafka_bootstrap_servers, [rise(1, level, 0)])
                await eventually(lambda: walk.ended)
            if not walk.opened_a_connection:
                break
    assert await _stands_at(engine, level)
    entered = [f"{code.co_filename.removeprefix(str(Path.cwd()))}:{code.co_qualname}" for code in walk.functions]
    assert "LevelConsumer._commit" in {code.co_qualname for code in walk.functions}
    assert len(entered) <= MOST_FUNCTIONS, "\n".join(entered)
    assert len({name.partition(":")[0] for name in entered}) <= MOST_MODULES
    for code in walk.functions:
        lines, _ = inspect.getsourcelines(code)
        assert len(lines) <= MOST_LINES, code.co_qualname
        assert not _only_forwards("".join(lines)), code.co_qualname


async def _stands_at(engine: AsyncEngine, level: int) -> bool:
    return (await licenses(engine)).get((1, "PLAYER")) == level


def _only_forwards(source: str) -> bool:
    """Return whether a function does nothing but call another one with its own arguments."""
    (function,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    body = [one for one in function.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    said = body[0].value if len(body) == 1 and isinstance(body[0], ast.Return | ast.Expr) else None
    if isinstance(said, ast.Await):
        said = said.value
    return isinstance(said, ast.Name | ast.Attribute) or (
        isinstance(said, ast.Call)
        and not said.keywords
        and all(isinstance(one, ast.Name | ast.Attribute) for one in said.args)
    )
