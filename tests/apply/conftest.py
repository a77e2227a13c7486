"""Fixtures of the hostile databases."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.applier import Events
from tests.support.tables import empty_tables


@pytest.fixture
async def events(engine: AsyncEngine) -> Events:
    """A consumer of both topics on the test's database, which has 200 users and not a level."""
    await empty_tables(engine)
    return await Events(engine).begin()
