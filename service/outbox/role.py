"""The role `relay`: brings the outbox to Kafka when it is this process's turn, and stands by otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncEngine

from service.background import in_background
from service.health import Health
from service.outbox.relay import Relay
from service.settings import Settings


@contextlib.asynccontextmanager
async def relay_role(engine: AsyncEngine, settings: Settings, health: Health) -> AsyncIterator[None]:
    """Run the relay beside the caller; its faults stand in `health` under "relay" and are waited out."""
    async with in_background(Relay(engine, settings, health).run, "relay", health):
        yield
