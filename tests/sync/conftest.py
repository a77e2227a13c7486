"""Fixtures of the tests of syncs."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.sync import ProgressLicenseSyncService


@pytest.fixture
def service(engine: AsyncEngine) -> ProgressLicenseSyncService:
    return ProgressLicenseSyncService(engine)
