"""METRICS_PORT: the metrics on a port of their own, which a network policy can close to everybody but Prometheus."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request

import pytest

from service.process.runtime import Service
from service.settings import Settings, SettingsError


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - a URL of our own process
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def _statuses(base: str) -> list[int]:
    return [await asyncio.to_thread(_status, f"{base}{path}") for path in ("/metrics", "/livez", "/readyz")]


async def test_with_a_metrics_port_the_metrics_are_there_and_not_on_the_http_port() -> None:
    """/livez and /readyz answer on both, so that probes need one port only. Nothing is ready without servers: 503."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    settings = Settings(http_port=0, metrics_port=0, database_url=nowhere, kafka_bootstrap_servers="127.0.0.1:1")
    async with Service(settings, frozenset({"apply"})) as service:
        assert service.metrics_url != service.http_url
        assert await _statuses(service.metrics_url) == [200, 200, 503]
        assert await _statuses(service.http_url) == [404, 200, 503]


def test_a_taken_metrics_port_is_a_fault_of_the_settings_that_names_it() -> None:
    """As for HTTP_PORT: exit 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = Settings(http_port=0, metrics_port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="LEVELSYNC_METRICS_PORT"):
            Service(settings, frozenset({"apply"}))
