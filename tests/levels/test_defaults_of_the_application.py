"""The application's own NOT NULL columns: what the settings give is tried before any record is."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.store.application import configuration_faults


async def test_a_default_that_does_not_convert_is_named_before_any_record(
    engine: AsyncEngine, settings: Settings
) -> None:
    """A word for an integer would otherwise refuse every new row as if its record were bad."""
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE user_licenses ADD COLUMN fee integer NOT NULL DEFAULT 0"))
    wrong = settings.model_copy(update={"license_defaults": {"fee": "much"}})
    right = settings.model_copy(update={"license_defaults": {"fee": "12"}})
    async with engine.connect() as conn:
        (sentence,) = await configuration_faults(conn, wrong)
        assert "LEVELSYNC_LICENSE_DEFAULTS" in sentence
        assert '"much"' in sentence
        assert await configuration_faults(conn, right) == []
