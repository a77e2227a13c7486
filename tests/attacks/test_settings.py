"""A database URL that nobody can take apart is a bad setting, and its password stays untold."""

from __future__ import annotations

import pytest

from service.process.runtime import run
from service.settings import Settings, SettingsError
from service.store.engine import make_engine

PASSWORD = "s3cret"  # noqa: S105 - what must not be shown


@pytest.mark.parametrize("rest", ["host:port/db", f"host:{PASSWORD}@host/db"])
def test_a_database_url_with_a_port_that_is_no_number_is_named_without_its_password(rest: str) -> None:
    """`int()` quotes what it cannot read: here it may be the end of a password."""
    url = f"postgresql://user:{PASSWORD}@{rest}"
    settings = Settings(_env_file=None, database_url=url, http_port=0)
    with pytest.raises(SettingsError, match="LEVELSYNC_DATABASE_URL") as told:
        make_engine(settings)
    assert PASSWORD not in str(told.value)
    assert told.value.__cause__ is None
    assert run(settings) == 2
