"""What a process reports over HTTP, and the connections that it accepts."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service.process.runtime import Service
from service.settings import Settings, SettingsError
from service.telemetry.health import Health
from service.telemetry.metrics import BatchHistogram
from service.web import http
from tests.support.process import Make, http_get


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        ("PostgreSQL at db.internal:5432,[::1]:2/app: connection refused", "PostgreSQL at …: connection refused"),
        (
            'PostgreSQL at db.internal:5432/app: password authentication failed for user "app_rw"',
            'PostgreSQL at …: password authentication failed for user "…"',
        ),
        (
            'no pg_hba.conf entry for host "10.1.2.3", user "app_rw", database "app", no encryption',
            'no pg_hba.conf entry for host "…", user "…", database "…", no encryption',
        ),
        ('role "app_rw" does not exist', 'role "…" does not exist'),
        (
            "two: Connect call failed ('::1', 5432, 0, 0), Connect call failed ('10.1.2.3', 5432)",
            "two: Connect call failed (…), Connect call failed (…)",
        ),
        (
            "certificate verify failed: Hostname mismatch, certificate is not valid for 'db.internal'.",
            'certificate verify failed: Hostname mismatch, certificate is not valid for "…".',
        ),
        ("permission denied for table users", "permission denied for table users"),
        ("The schema is not migrated. Run: levelsync migrate", "The schema is not migrated. Run: levelsync migrate"),
    ],
)
def test_nobody_reads_a_database_s_names_from_readyz(problem: str, shown: str) -> None:
    """The problem stays. Signed-in users read all of it on the page."""
    health = Health()
    health.report("postgresql", health, problem)
    assert health.for_anybody() == {"postgresql": [shown]}
    assert health.by_component() == {"postgresql": [problem]}


async def _statuses(base: str) -> list[int]:
    paths = ("/metrics", "/livez", "/readyz")
    return [(await asyncio.to_thread(http_get, f"{base}{path}"))[0] for path in paths]


async def test_with_a_metrics_port_the_metrics_are_there_and_not_on_the_http_port() -> None:
    """/livez and /readyz answer on both ports. Without servers nothing is ready: 503."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    settings = Settings(http_port=0, metrics_port=0, database_url=nowhere, kafka_bootstrap_servers="127.0.0.1:1")
    async with Service(settings, frozenset({"apply"})) as service:
        assert service.metrics_url != service.http_url
        assert await _statuses(service.metrics_url) == [200, 200, 503]
        assert await _statuses(service.http_url) == [404, 200, 503]


def test_a_taken_metrics_port_is_a_fault_of_the_settings_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = Settings(http_port=0, metrics_port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="LEVELSYNC_METRICS_PORT"):
            Service(settings, frozenset({"apply"}))


BUCKETS = (0.125, 0.5, 1, 43200)  # whose sums are exact in any order
_SECONDS = st.lists(st.integers(0, 50_000).map(lambda number: number / 8) | st.sampled_from(BUCKETS), max_size=50)


@given(st.lists(_SECONDS, max_size=4))
def test_batches_count_as_their_values_one_by_one(batches: list[list[float]]) -> None:
    """Prometheus reads the same text: buckets, bounds, count and sum."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batch = BatchHistogram("delay_seconds", "Delay", label="type", values=["a"], buckets=BUCKETS, registry=ours)
    single = Histogram("delay_seconds", "Delay", ["type"], buckets=BUCKETS, registry=theirs).labels("a")
    for observed in batches:
        batch.observe_all("a", observed)
        for value in observed:
            single.observe(value)
    lines = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == lines


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connections(port: int, number: int = 8, sends: bytes = b"") -> list[Connection]:
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    for _reader, writer in opened:
        writer.write(sends)
    return opened


async def _assert_closed(connections: list[Connection], within: float = 10) -> None:
    for reader, writer in connections:
        assert await asyncio.wait_for(reader.read(), within) == b""
        writer.close()


async def test_silent_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest beyond a number at once, the others after a time. Half a header counts as silence."""
    monkeypatch.setattr(http, "MAX_SILENT", 5)
    monkeypatch.setattr(http, "HEADERS_WITHIN", 1.0)
    listener = http.bind(Settings(_env_file=None, http_port=0))
    async with http.served(http.make_app(Health()), listener) as url:
        silent = await _connections(listener.getsockname()[1])
        silent[-1][1].write(b"GET /livez HTTP/1.1\r\nHost:")
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/livez")).status_code == 200
            await _assert_closed(silent)
            assert (await client.get("/livez")).status_code == 200


async def test_bodies_that_never_come_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_SILENT", 5)
    monkeypatch.setattr(http, "HEADERS_WITHIN", 0.5)
    monkeypatch.setattr(http, "BODY_WITHIN", 1.0)
    listener = http.bind(Settings(_env_file=None, http_port=0))
    async with http.served(Route("/", echo, methods=["GET", "POST"]), listener) as url:
        half_a_form = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na"
        connections = await _connections(listener.getsockname()[1], sends=half_a_form)
        async with httpx.AsyncClient(base_url=url) as client:
            await _assert_closed(connections)
            assert (await client.post("/", content=b"a" * 500_000)).text == "500000"
            assert (await client.post("/", content=slowly())).text == "3"


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def slowly() -> AsyncIterator[bytes]:
    """Send a body for longer than headers may take."""
    for _ in range(3):
        await asyncio.sleep(0.25)
        yield b"a"


@pytest.mark.soak
@pytest.mark.usefixtures("topics")
async def test_silent_connections_do_not_use_up_all_files(settings: Settings, levelsync_process: Make) -> None:
    process = levelsync_process(settings, ("serve",))
    await process.start()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, 256))
    silent: list[Connection] = []
    for _ in range(5):
        silent += await _connections(int(str(process.url).rpartition(":")[2]), 50)
        assert (await process.get("/livez"))[0] == 200
    for _ in range(20):
        assert (await process.get("/livez"))[0] == 200
    await _assert_closed(silent, 15)
    assert (await process.get("/readyz"))[0] == 200
    assert "Too many open files" not in process.output


def test_a_process_without_the_api_loads_no_fastapi() -> None:
    code = "import sys, service.process.runtime; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0  # noqa: S603 - our own code
