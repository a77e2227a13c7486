"""Connections that send no request take nothing away from those that do."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service.settings import Settings
from service.telemetry.health import Health
from service.web import http
from tests.support.process import LevelsyncProcess


async def test_silent_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest beyond a number at once, the others after a time; half a header is as good as none."""
    monkeypatch.setattr(http, "MOST_SILENT", 5)
    monkeypatch.setattr(http, "HEADERS_WITHIN", 1.0)
    listener = http.bind(Settings(_env_file=None, http_port=0))
    port = listener.getsockname()[1]
    async with http.served(http.make_app(Health()), listener) as url:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        silent[-1][1].write(b"GET /livez HTTP/1.1\r\nHost:")
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/livez")).status_code == 200
            for reader, _writer in silent:
                assert await asyncio.wait_for(reader.read(), 10) == b""
            assert (await client.get("/livez")).status_code == 200
        for _reader, writer in silent:
            writer.close()


async def test_bodies_that_never_come_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like silent connections: whoever says that a form follows needs no session for that."""
    monkeypatch.setattr(http, "MOST_SILENT", 5)
    monkeypatch.setattr(http, "HEADERS_WITHIN", 0.5)
    monkeypatch.setattr(http, "BODY_WITHIN", 1.0)
    listener = http.bind(Settings(_env_file=None, http_port=0))
    async with http.served(Route("/", echo, methods=["GET", "POST"]), listener) as url:
        connections = []
        for _ in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na")
            connections.append((reader, writer))
        async with httpx.AsyncClient(base_url=url) as client:
            for reader, _ in connections:
                assert await asyncio.wait_for(reader.read(), 10) == b""
            assert (await client.post("/", content=b"a" * 500_000)).text == "500000"
            assert (await client.post("/", content=slowly())).text == "3"
        for _, writer in connections:
            writer.close()


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def slowly() -> AsyncIterator[bytes]:
    """A body that takes longer than headers may."""
    for _ in range(3):
        await asyncio.sleep(0.25)
        yield b"a"


@pytest.mark.soak
async def test_250_silent_connections_leave_a_process_of_256_files_alive(
    settings: Settings,
    topics: list[str],  # noqa: ARG001 - the process consumes them
    levelsync_process: Callable[..., LevelsyncProcess],
) -> None:
    """Where silent connections took every file, the probe's connection would be reset."""
    process = levelsync_process(settings, ("serve",))
    await process.start()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, 256))
    host, _, port = str(process.url).removeprefix("http://").rpartition(":")
    silent = []
    for _ in range(250):
        silent.append(await asyncio.open_connection(host, int(port)))
        if len(silent) % 50 == 0:
            assert (await process.get("/livez"))[0] == 200
    for _ in range(20):
        assert (await process.get("/livez"))[0] == 200
    for reader, _writer in silent:
        assert await asyncio.wait_for(reader.read(), 15) == b""
    assert (await process.get("/readyz"))[0] == 200
    assert "Too many open files" not in process.output
    for _reader, writer in silent:
        writer.close()
