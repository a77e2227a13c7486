"""The steps of the demo, and the servers on which it runs."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import service.local  # noqa: F401 - first, so that a missing extra is reported before the demo begins
from events import LicenseAdvanced, ProgressLeveledUp, ReconcileRequested, read_line
from service import dead_letters
from service.cli.demo import queries
from service.cli.demo.queries import DAMAGED, PairKey, ShownPair
from service.cli.demo.screen import Screen
from service.cli.reconcile import ask, show_report
from service.cli.runs import show_issues
from service.cli.servers import local_stack
from service.core.names import HEALABLE, fold
from service.process.runtime import ROLES, Service
from service.reconcile.runs import lowered_first
from service.reconcile.values import FoundIssue, RunReport
from service.settings import Settings
from service.store.engine import make_engine
from service.store.tables import applied_positions
from service.stream.connection import describe_cluster
from service.stream.lag import EndOffsets, lag
from service.stream.producer import deliver, running_producer
from service.telemetry.logs import configure_logs


@dataclass(frozen=True)
class Demo:
    """The running service, the connections to it, and the screen."""

    settings: Settings
    engine: AsyncEngine
    producer: AIOKafkaProducer
    screen: Screen
    url: str
    cluster_id: str


_CHECKOUT = Path(__file__).parents[3] / "examples" / "events.jsonl"


def sample_events() -> list[ProgressLeveledUp | LicenseAdvanced]:
    """Read the sample events, in the order of the file."""
    packed = files("service.cli.demo") / "events.jsonl"
    text = (packed if packed.is_file() else _CHECKOUT).read_text(encoding="utf-8")
    events = [read_line(line) for line in text.splitlines() if line.strip()]
    return [event for event in events if isinstance(event, ProgressLeveledUp | LicenseAdvanced)]


_KINDS = (*HEALABLE, "needs_decision", "unconfirmed")


async def show_repair(demo: Demo) -> bool:
    """Damage some pairs, find them and heal them; return whether exactly these were found and none is left.

    Raises:
        Unreachable: no worker read the request for a run.
    """
    await _show_damage(demo)
    exact = await _show_dry_run(demo)
    healed = await _show_heal(demo)
    return await _show_nothing_left(demo) and exact and healed


async def _show_damage(demo: Demo) -> None:
    screen = demo.screen
    screen.step("Somebody edits the tables by hand")
    screen.print_sentence("Two licenses are lowered, one is removed, one progress row is raised. No event reports it.")
    async with demo.engine.connect() as conn:
        await queries.damage(conn)
    screen.pairs("Damaged", await _damaged(demo))


async def _show_dry_run(demo: Demo) -> bool:
    """Request a dry run through Kafka, as `levelsync reconcile` does."""
    demo.screen.step("A dry run finds exactly these pairs")
    report, found = await _run(demo, execute=False)
    show_report(report)
    show_issues(found)
    return {(issue.user_id, issue.specialization) for issue in found} == set(DAMAGED)


async def _show_heal(demo: Demo) -> bool:
    screen = demo.screen
    screen.step("The same run for real heals them")
    async with demo.engine.connect() as conn:
        last_row = await queries.last_history_id(conn)
    report, _ = await _run(demo, execute=True)
    show_report(report)
    async with demo.engine.connect() as conn:
        history = await queries.history_after(conn, last_row)
    screen.pairs("Healed: the licenses follow the progress", pairs := await _damaged(demo))
    screen.print_sentence("Every healed license has one more history row, with the run's id:")
    screen.history(history)
    return report.counts["healed"] == len(DAMAGED) and all(pair.agrees for pair in pairs)


async def _show_nothing_left(demo: Demo) -> bool:
    demo.screen.step("A second dry run finds nothing")
    report, _ = await _run(demo, execute=False)
    show_report(report)
    return report.status == "completed" and not any(report.counts[kind] for kind in _KINDS)


async def _run(demo: Demo, *, execute: bool) -> tuple[RunReport, list[FoundIssue]]:
    """Request a run, wait for its end, and return its report and its issues."""
    request = ReconcileRequested(direction="progress_to_license", dry_run=not execute, requested_by="levelsync demo")
    report = await ask(demo.settings, request, wait=True)
    async with demo.engine.connect() as conn:
        return report, [issue async for issue in lowered_first(conn, report.run_id)]


async def _damaged(demo: Demo) -> list[ShownPair]:
    async with demo.engine.connect() as conn:
        pairs = await queries.all_pairs(conn)
    return [pairs[key] for key in DAMAGED]


_APPLY_TIMEOUT = 30.0
_LOOK_EVERY = 0.05
_NEIGHBOUR = 25
_BAD_VALUE = b'{"user_id": "forty-two", "specialization": "PLAYER", "to_level": 3}'

Event = ProgressLeveledUp | LicenseAdvanced


@dataclass(frozen=True)
class DemoRecord:
    """A record for Kafka, which need not be an event."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


async def show_all(demo: Demo) -> bool:
    """Show every step. Return whether every step had its expected result, and both tables agree at the end.

    Raises:
        TimeoutError: the service did not apply the events within half a minute.
        Unreachable: the service did not read the request for a run.
    """
    events = sample_events()
    await _publish_and_show(demo, events)
    await _show_bad_record(demo)
    unchanged = await _show_repetition(demo, events)
    repaired = await show_repair(demo)
    await _show_metrics(demo)
    return await _compare(demo) and unchanged and repaired


async def _publish_and_show(demo: Demo, events: Sequence[Event]) -> None:
    screen = demo.screen
    screen.step("The application writes its own table and publishes what happened")
    screen.print_sentence("A level-up raised specialization_progress, an advancement raised user_licenses, never both.")
    async with demo.engine.connect() as conn:
        await _play_application(conn, events)
        before, last_row = await queries.all_pairs(conn), await queries.last_history_id(conn)
    touched = _touched(events, before)
    screen.pairs("Before", (before[key] for key in touched))
    await deliver(demo.producer, [event.to_kafka() for event in events])
    screen.print_sentence(f"{len(events)} events of examples/events.jsonl are in Kafka.")

    screen.step("levelsync raises the other table")
    await _applied(demo)
    async with demo.engine.connect() as conn:
        after, history = await queries.all_pairs(conn), await queries.history_after(conn, last_row)
    screen.pairs("After", (after[key] for key in touched))
    screen.print_sentence("Every event that raised a license added one history row, with its id:")
    screen.history(history)


async def _show_bad_record(demo: Demo) -> None:
    """Send a record that can never apply between two good records, to the same partition."""
    screen = demo.screen
    screen.step("One bad record between two good ones")
    good = [ProgressLeveledUp(user_id=_NEIGHBOUR, specialization="PLAYER", to_level=level) for level in (4, 5)]
    async with demo.engine.connect() as conn:
        await _play_application(conn, good)
    first, last = (event.to_kafka() for event in good)
    await deliver(demo.producer, [first, DemoRecord(first.topic, first.key, _BAD_VALUE, first.headers), last])
    await _applied(demo)
    async with demo.engine.connect() as conn:
        pairs = await queries.all_pairs(conn)
        for line in await dead_letters.list_open(conn, limit=1):
            if letter := await dead_letters.find(conn, line.id):
                screen.letter(letter, dead_letters.MEANINGS[letter.reason])
    screen.print_sentence(
        "The bad record is a dead letter, stored whole (levelsync dead-letters list). The good ones were applied:"
    )
    screen.pairs("", [pairs[_NEIGHBOUR, "PLAYER"]])


async def _show_repetition(demo: Demo, events: Sequence[Event]) -> bool:
    screen = demo.screen
    screen.step("Everything is published again")
    async with demo.engine.connect() as conn:
        before = await queries.fingerprint(conn)
    await deliver(demo.producer, [event.to_kafka() for event in reversed(events)])
    await _applied(demo)
    async with demo.engine.connect() as conn:
        same = await queries.fingerprint(conn) == before
    screen.print_sentence(
        f"{len(events)} events again, last first: " + ("no row changed." if same else "ROWS CHANGED.")
    )
    return same


async def _show_metrics(demo: Demo) -> None:
    demo.screen.step("What a dashboard sees")
    page = await asyncio.to_thread(_get, f"{demo.url}/metrics")
    demo.screen.metrics(page)


async def _compare(demo: Demo) -> bool:
    """Compare both tables in full; return whether they agree."""
    async with demo.engine.connect() as conn:
        pairs = (await queries.all_pairs(conn)).values()
    different = [pair for pair in pairs if not pair.agrees]
    demo.screen.step("Do the tables agree?")
    demo.screen.print_sentence(f"{len(pairs)} pairs compared, {len(different)} differ.")
    if different:
        demo.screen.pairs("Different", different[:20])
    return not different


async def _play_application(conn: AsyncConnection, events: Sequence[Event]) -> None:
    """Write the table of each event, as the application does before it publishes."""
    known = await queries.specializations(conn)
    rows = [
        {"user_id": event.user_id, "specialization": known[fold(event.specialization)], "to_level": event.to_level}
        for event in events
    ]
    advanced = [isinstance(event, LicenseAdvanced) for event in events]
    await queries.write_own_rows(
        conn,
        progress=[row for row, is_license in zip(rows, advanced, strict=True) if not is_license],
        licenses=[row for row, is_license in zip(rows, advanced, strict=True) if is_license],
    )


def _touched(events: Iterable[Event], pairs: Iterable[PairKey]) -> list[PairKey]:
    """Return the pairs of the events."""
    named = {(event.user_id, fold(event.specialization)) for event in events}
    return sorted(key for key in pairs if (key[0], fold(key[1])) in named)


async def _applied(demo: Demo) -> None:
    """Wait until everything in Kafka is applied.

    Raises:
        TimeoutError: it took longer than half a minute.
    """
    async with EndOffsets(demo.settings) as kafka, asyncio.timeout(_APPLY_TIMEOUT):
        ends = await kafka.read()
        while any(lag(ends, await _positions(demo)).values()):
            await asyncio.sleep(_LOOK_EVERY)


async def _positions(demo: Demo) -> dict[TopicPartition, int]:
    async with demo.engine.connect() as conn:
        return await applied_positions(conn, demo.cluster_id, {})  # topics of the embedded broker have no ids


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own service, on loopback
        return str(answer.read().decode())


async def play(folder: Path) -> bool:
    """Show every step, with all data in `folder`. Return whether both tables agree at the end.

    Raises:
        Unreachable: PostgreSQL or the broker cannot run here, or the service did not read the request for a run.
        TimeoutError: the service did not apply the events in time.
    """
    started = time.monotonic()
    screen = Screen()
    # The environment's settings are not read, so that the demo shows the same everywhere.
    settings = Settings(
        _env_file=None,
        http_port=0,
        http_host="127.0.0.1",
        log_level="WARNING",
        apply_since=None,
        reconcile_grace=timedelta(seconds=1),  # here, every event is in Kafka before the run begins
        reconcile_every=timedelta(0),  # the demo requests its runs itself
    )
    configure_logs(settings)
    screen.step("An empty PostgreSQL and an empty broker start; the migrations create the tables")
    async with local_stack(folder / "postgres", settings) as reached, Service(reached, ROLES - {"api"}) as service:
        await service.ready()
        screen.print_sentence(f"levelsync serves at {service.http_url} (/livez, /readyz, /metrics)")
        agree = await _run_steps(reached, screen, service.http_url)
    screen.print_sentence(
        f"Done in {time.monotonic() - started:.1f} s; PostgreSQL, the broker and the service are stopped."
    )
    return agree


async def _run_steps(settings: Settings, screen: Screen, url: str) -> bool:
    engine = make_engine(settings, pool_size=2)
    try:
        cluster = await describe_cluster(settings)
        async with running_producer(settings) as producer:
            return await show_all(Demo(settings, engine, producer, screen, url, cluster.id))
    finally:
        await engine.dispose()
