"""`levelsync doctor`: one line for each check, and the exit code."""

import json

import pytest
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cli.doctor_checks import _lag_by_topic
from service.settings import Settings
from service.stream.positions import set_position
from tests.support.process import Make, Result, environment, levelsync
from tests.support.tables import execute
from tests.support.topics import Record, publish

OUT_OF_REACH = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "HTTP_PORT": "1"}


def checks(run: Result) -> dict[str, str]:
    return {check["check"]: check["verdict"] for check in json.loads(run.stdout)["checks"]}


@pytest.mark.usefixtures("topics")
async def test_a_running_installation_passes_every_check(settings: Settings, levelsync_process: Make) -> None:
    process = levelsync_process()
    await process.start()
    port = str(process.url).rpartition(":")[2]
    run = levelsync("doctor", "--json", env=environment(settings, HTTP_PORT=port))
    assert set(checks(run).values()) == {"PASS"}, run.stdout
    assert (run.returncode, json.loads(run.stdout)["ok"], run.stderr) == (0, True, "")


def test_everything_down_is_exit_3_and_still_every_check_is_named() -> None:
    """Checks of a component that does not answer are skipped, and the component's line says what to do."""
    env = {"LEVELSYNC_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    run = levelsync("doctor", env=env | {f"LEVELSYNC_{name}": value for name, value in OUT_OF_REACH.items()})
    assert run.returncode == 3
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["PASS", "FAIL", "SKIP", "SKIP", "FAIL", "SKIP", "SKIP", "SKIP"]
    for component in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"):
        assert any(component in line and "levelsync up" in line for line in lines)


def test_postgresql_is_checked_while_kafka_is_down(settings: Settings) -> None:
    run = levelsync("doctor", "--json", env=environment(settings, **OUT_OF_REACH))
    found = checks(run)
    assert run.returncode == 3
    assert (found["Kafka reachable"], found["Topics"], found["Lag"]) == ("FAIL", "SKIP", "SKIP")
    assert {found["PostgreSQL reachable"], found["Migrations"], found["Users"], found["Max level sync"]} == {"PASS"}


def test_an_unknown_setting_fails(settings: Settings) -> None:
    run = levelsync("doctor", "--json", env=environment(settings, HTTP_PORT="1", BATCH_MAX_RECORD="7"))
    assert run.returncode == 1
    (finding,) = (check for check in json.loads(run.stdout)["checks"] if check["check"] == "Settings")
    assert finding["verdict"] == "FAIL"
    assert "LEVELSYNC_BATCH_MAX_RECORDS" in finding["detail"]


def test_a_database_that_is_not_migrated_is_exit_1(empty_database_url: str, settings: Settings) -> None:
    changed = settings.model_copy(update={"database_url": empty_database_url})
    run = levelsync("doctor", env=environment(changed, HTTP_PORT="1", DATABASE_URL=empty_database_url))
    assert run.returncode == 1
    assert "Run: levelsync migrate" in run.stdout


async def test_empty_users_fail(settings: Settings, engine: AsyncEngine) -> None:
    await execute(engine, "TRUNCATE users CASCADE")
    assert checks(levelsync("doctor", "--json", env=environment(settings, HTTP_PORT="1")))["Users"] == "FAIL"


@pytest.mark.usefixtures("topics")
def test_lag_that_does_not_fall_fails(settings: Settings) -> None:
    env = environment(settings, HTTP_PORT="1")
    event = ("--user", "42", "--specialization", "PLAYER", "--to-level", "5")
    assert levelsync("publish", "leveled-up", *event, env=env).returncode == 0
    run = levelsync("doctor", "--json", env=env)
    found = checks(run)
    assert run.returncode == 1
    assert (found["Lag of progress.leveled-up"], found["Lag of license.advanced"]) == ("FAIL", "PASS")
    assert found["Running service"] == "SKIP"


@pytest.mark.real_broker
@pytest.mark.usefixtures("topics")
async def test_the_lag_of_a_topic_created_again_is_its_own(settings: Settings, engine: AsyncEngine) -> None:
    """The position row belongs to the deleted topic."""
    async with engine.begin() as conn:
        await set_position(conn, TopicPartition("progress.leveled-up", 0), 100, "", "deleted")
    await publish(settings.kafka_bootstrap_servers, [Record("progress.leveled-up", b"1", b"{}", partition=0)])
    assert await _lag_by_topic(settings) == {"progress.leveled-up": 1, "license.advanced": 0}
