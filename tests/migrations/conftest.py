"""The database of a migration test."""

from __future__ import annotations

import pytest


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url
