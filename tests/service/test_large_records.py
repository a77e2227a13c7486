"""Records that are small on the wire and large in memory (law 4, "Too large")."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from sqlalchemy.ext.asyncio import AsyncEngine

from service.core.outcomes import Cut
from service.settings import Settings
from service.stream import records as reading
from service.stream.records import _Records, read_any_records
from tests.support import applying
from tests.support.applying import rise
from tests.support.process import LevelsyncProcess, Make, http_get
from tests.support.tables import count, licenses, read
from tests.support.topics import Record, publish
from tests.support.waiting import eventually

MEGABYTE = 1024 * 1024
CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@pytest.fixture(autouse=True)
def _bound() -> Iterator[None]:
    read_any_records(MEGABYTE)
    yield
    read_any_records(16_000_000)


def read_batch(codec: int, values: list[bytes]) -> list[Any]:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for number, value in enumerate(values):
        builder.append(number, 1000 + number, b"key", value, [("name", b"of a header")])
    found = _Records(bytes(builder.build()))
    return list(found.next_batch())


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_record_above_the_bound_is_cut_and_its_neighbours_are_whole(codec: int) -> None:
    """Many small records of a large batch are whole, too."""
    large = b"a" * (3 * MEGABYTE)
    found = read_batch(codec, [b"before", large, b"after", b"b" * (900 * 1024), large])
    assert [bytes(one.value) for one in found[::2][:2]] == [b"before", b"after"]
    assert [len(one.value) for one in found] == [6, 64 * 1024, 5, 900 * 1024, 64 * 1024]
    assert [one.offset for one in found] == [0, 1, 2, 3, 4]
    assert [one.timestamp for one in found] == [1000, 1001, 1002, 1003, 1004]
    assert {one.key for one in found} == {b"key"}
    assert found[2].headers == [("name", b"of a header")]
    cut = found[1].value
    assert isinstance(cut, Cut)
    assert cut.about.startswith("a value of 3145728 bytes, of which the first 65536 are stored; SHA-256 of its first")
    values = [b"%d " % number + b"x" * 50_000 for number in range(100)]
    assert [one.value for one in read_batch(codec, values)] == values


def test_the_digest_is_of_the_part_that_was_read() -> None:
    large = bytes(range(256)) * 8 * 1024
    about = read_batch(CODECS["gzip"], [large])[0].value.about
    size = int(about.split("SHA-256 of its first ")[1].split()[0])
    assert about.endswith(hashlib.sha256(large[:size]).hexdigest())


@pytest.mark.real_broker
@pytest.mark.parametrize(
    "sizes", [[50] * 8, pytest.param([50] * 24 + [300], marks=pytest.mark.soak)], ids=["8 of 50 MB", "and 300 MB"]
)
async def test_a_process_holds_no_more_than_the_bound_whatever_is_sent(
    database: AsyncEngine,
    settings: Settings,
    levelsync_process: Make,
    sizes: list[int],
) -> None:
    """Records of kilobytes on the wire, with good ones before and after them. A process in 512 MB survives."""
    read_any_records(16_000_000)
    send = settings.kafka_bootstrap_servers
    await publish(send, [rise(user, 3, user % 4) for user in range(1, 9)])
    for number, size in enumerate(sizes):
        record = Record("progress.leveled-up", b"1", b"\0" * (size * MEGABYTE), [], None, number % 4)
        await publish(send, [record], compression_type="zstd", max_request_size=400 * MEGABYTE)
    await publish(send, [rise(user, 4, user % 4) for user in range(1, 9)])
    process = levelsync_process(settings, ("serve", "--roles", "apply"), fresh=True)
    await process.start()
    await applying.caught_up(settings, database, 60)
    assert await licenses(database) == {(user, "PLAYER"): 4 for user in range(1, 9)}
    letters = "SELECT count(*), min(octet_length(value)), max(reason) FROM levelsync.dead_letters"
    assert await read(database, letters) == [(len(sizes), 65536, "too_large")]
    assert peak_megabytes(process.pid) < 350
    assert await process.terminate() == 0


@pytest.mark.soak
@pytest.mark.real_broker
async def test_livez_answers_within_a_second_while_a_record_of_300_mb_is_read(
    database: AsyncEngine, settings: Settings, levelsync_process: Make
) -> None:
    """Kubernetes' probe waits a second, and the process has 512 MB."""
    read_any_records(16_000_000)
    record = Record("progress.leveled-up", b"1", b"\0" * (300 * MEGABYTE))
    await publish(settings.kafka_bootstrap_servers, [record], compression_type="zstd", max_request_size=400 * MEGABYTE)
    process = levelsync_process(settings, ("serve", "--roles", "apply"), fresh=True)
    await process.start(ready=False)
    await eventually(lambda: _is_alive(process))
    end = threading.Event()
    probe = asyncio.create_task(asyncio.to_thread(_slowest_answer, str(process.url), end))
    try:
        await applying.caught_up(settings, database, 60)
    finally:
        end.set()
    assert await probe < 1
    assert await count(database, "levelsync.dead_letters") == 1
    assert peak_megabytes(process.pid) < 512
    assert await process.terminate() == 0


async def _is_alive(process: LevelsyncProcess) -> bool:
    return process.url is not None and (await process.get("/livez"))[0] == 200


def _slowest_answer(url: str, end: threading.Event) -> float:
    slowest = 0.0
    while not end.is_set():
        began = time.monotonic()
        assert http_get(f"{url}/livez")[0] == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def peak_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_the_bound_is_read_from_the_settings() -> None:
    assert reading._largest == MEGABYTE
    assert Settings(_env_file=None, database_url="postgresql://x@localhost/y").record_max_bytes == 16_000_000
