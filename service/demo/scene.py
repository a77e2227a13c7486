"""What the demo's steps play on."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from sqlalchemy.ext.asyncio import AsyncEngine

from service.demo.screen import Screen
from service.settings import Settings


@dataclass(frozen=True)
class Stage:
    """The running service, what reaches it, and where the steps are shown."""

    settings: Settings
    engine: AsyncEngine
    producer: AIOKafkaProducer
    screen: Screen
    url: str
    cluster_id: str
