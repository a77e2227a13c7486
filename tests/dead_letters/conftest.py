"""Fixtures of the tests of dead letters."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.letters import Setup


@pytest.fixture
async def setup(engine: AsyncEngine) -> Setup:
    """A database with 200 users and no levels, and a reader."""
    return await Setup.begin(engine)
