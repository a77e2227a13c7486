"""Another broker, and the order of the soak tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import apache_kafka
from tests.support.servers import Kafka

_OUTAGES = Path(__file__).with_name("test_outages.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the outages: they take ten minutes and little CPU, so the other worker runs the rest."""
    items.sort(key=lambda item: item.path != _OUTAGES)


@pytest.fixture
async def own_kafka(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Kafka]:
    """A broker of the test's own, with the contract's topics, empty."""
    if not kafka.can_restart or (reason := apache_kafka.unavailable()):
        pytest.skip("no second broker" if not kafka.can_restart else reason)
    async with apache_kafka.ApacheKafka(tmp_path / "kafka") as server:
        made = Kafka(server.bootstrap_servers, real=True, server=server)
        await made.fresh_topics()
        yield made
