"""The role `api` as a process, and what it needs."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.support.process import Make
from tests.support.tokens import PREFIX, token
from tests.support.waiting import eventually

SHORT = "a-secret-of-thirty-one-bytes-31"


@pytest.mark.parametrize(
    ("roles", "secret", "said"),
    [
        ((), None, "LEVELSYNC_JWT_JWKS_URL"),
        (("--roles", "api"), None, "LEVELSYNC_JWT_JWKS_URL"),
        ((), SHORT, "32 bytes"),
    ],
    ids=["no key", "no key of the API", "a short secret"],
)
async def test_without_a_good_key_it_ends_before_anything_starts(
    settings: Settings, levelsync_process: Make, roles: tuple[str, ...], secret: str | None, said: str
) -> None:
    """The secret is not printed."""
    changed = settings.model_copy(update={"jwt_secret": SecretStr(secret) if secret else None})
    process = levelsync_process(changed, ("serve", *roles))
    await process.start(ready=False)
    assert await process.wait(20) == 2
    assert "LEVELSYNC_JWT_SECRET" in process.output
    assert said in process.output
    assert "serving" not in process.output
    assert SHORT not in process.output


async def test_another_role_needs_no_key(settings: Settings, levelsync_process: Make) -> None:
    process = levelsync_process(settings.model_copy(update={"jwt_secret": None}), ("serve", "--roles", "relay"))
    await process.start()
    assert (await process.get(f"{PREFIX}/runs"))[0] == 404
    assert await process.terminate() == 0


async def test_the_api_answers_without_kafka(settings: Settings, levelsync_process: Make) -> None:
    """/readyz names Kafka. Runs go through the outbox. The log has each request's id and no token."""
    away = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1", "log_format": "json"})
    secret = token(settings, "admin")
    process = levelsync_process(away, ("serve", "--roles", "api"))
    await process.start(ready=False)

    async def names_kafka() -> bool:
        status, body = await process.get("/readyz") if process.url else (0, "{}")
        return status == 503 and "kafka" in json.loads(body)["problems"]

    await eventually(names_kafka)
    headers = {"Authorization": f"Bearer {secret}", "X-Request-ID": "find-me"}
    async with httpx.AsyncClient(base_url=f"{process.url}{PREFIX}", headers=headers) as client:
        assert (await client.get("/desync-issues")).status_code == 200
        assert (await client.post("/user/3", json={"specialization": "PLAYER"})).json()["success"]
        asked = await client.post("/all", json={}, headers={"Prefer": "respond-async"})
        assert asked.status_code == 202
        assert (await client.get(asked.headers["location"].removeprefix(PREFIX))).json()["status"] == "planning"
    assert await process.terminate() == 0
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    told = [line["event"] for line in lines if line.get("request_id") == "find-me"]
    assert told.count("request") == 4
    assert {"pair synced", "admin action"} <= set(told)
    assert secret not in process.output


async def test_a_stop_answers_waiting_requests(settings: Settings, levelsync_process: Make) -> None:
    """503 and exit 0. The stop waits for no run."""
    process = levelsync_process(settings, ("serve", "--roles", "api"))
    await process.start()
    headers = {"Authorization": f"Bearer {token(settings, 'admin')}"}
    async with httpx.AsyncClient(base_url=f"{process.url}{PREFIX}", headers=headers, timeout=40) as client:
        waiting = asyncio.create_task(client.post("/all", json={}, headers={"Idempotency-Key": "stop"}))
        other = await client.post("/all", json={}, headers={"Idempotency-Key": "stop", "Prefer": "respond-async"})
        assert other.status_code == 202
        assert await process.terminate() == 0
        answer = await waiting
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "Traceback" not in process.output
    assert "failed" not in process.output
