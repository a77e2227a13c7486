"""Apache Kafka from its Maven jars: KRaft, one node, on loopback."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from service.local.process import HOST, EmbeddedError, Server, ServerProcess, answers, free_port

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
VERSION = re.findall(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)<", POM.read_text(encoding="utf-8"))[0]
JARS = HERE.parents[1] / ".cache" / f"kafka-{VERSION}"
_OLDEST_JAVA = 17
_FETCH_SECONDS = 300
_START_SECONDS = 60
_JVM = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto"]
"""A broker that starts fast and leaves the cores to the tests."""
_CLASSES = JARS.with_name(f"{JARS.name}.jsa")
"""An archive of Kafka's classes, which the JVM loads faster than jars. The first format creates it."""
_LOADED = f"-XX:SharedArchiveFile={_CLASSES}"


def unavailable() -> str:
    """Return why this way cannot be taken, or ''. Fetches the jars where they are missing."""
    if shutil.which("java") is None or (shutil.which("mvn") is None and not _fetched()):
        return "java and mvn are not both on the PATH"
    if (version := _java_version()) < _OLDEST_JAVA:
        return f"java is version {version}, Kafka needs {_OLDEST_JAVA}"
    return "" if _fetched() else _fetch()


@cache
def _java_version() -> int:
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S607
    match = re.search(r'version "(\d+)', said)
    return int(match[1]) if match else 0


def _fetched() -> bool:
    return any(JARS.glob("kafka_2.13-*.jar"))


def _fetch() -> str:
    """Copy the jars into the cache folder, all or none; returns what went wrong, or ''."""
    partial = JARS.with_name(f"{JARS.name}.{uuid.uuid4().hex}")
    command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)  # noqa: S603
        if result.returncode != 0:
            return f"mvn could not fetch Kafka: {result.stdout[-500:]}"
        if not _fetched():
            partial.rename(JARS)
    except subprocess.TimeoutExpired:
        return f"mvn did not fetch Kafka within {_FETCH_SECONDS} s"
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ""


class ApacheKafka(Server):
    """One broker with its log in `folder`. Records and offsets survive `stop` and `start`, on the same port.

    Raises:
        EmbeddedError: on `start`, when the broker does not answer in time.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        listeners: Mapping[str, str] = {},
        scram: Sequence[str] = (),
        settings: Mapping[str, object] = {},
    ) -> None:
        """Accept more listeners by their addresses, with their protocols in `settings`.

        `scram` are users in the form of `kafka-storage format --add-scram`. `settings` are the broker's own.
        """
        self.folder = folder
        self.port = port or free_port()
        self._controller_port = free_port()
        self._listeners = listeners
        self._scram = scram
        self._settings = settings

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        if not self._properties.exists():
            self._format()
        # A stop may be short, because the tests are about what clients see, not about the broker's files.
        self._process = ServerProcess(
            _java(_LOADED, "kafka.Kafka", str(self._properties)), self.folder / "kafka.log", stop_seconds=10
        )
        self._process.start()
        self._process.wait_until(self._answers, _START_SECONDS)

    def stop(self) -> None:
        """Stop the broker. Its records stay."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _format(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._properties.with_suffix(".new")
        new.write_text("".join(f"{name}={value}\n" for name, value in self._configuration().items()), encoding="utf-8")
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        archive = _CLASSES.with_name(f"{_CLASSES.name}.{uuid.uuid4().hex}")
        classes = _LOADED if _CLASSES.exists() else f"-XX:ArchiveClassesAtExit={archive}"
        command = _java(classes, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(new))
        command += [argument for user in self._scram for argument in ("--add-scram", user)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode != 0:
            raise EmbeddedError(f"Kafka's storage could not be formatted: {result.stdout}{result.stderr}")
        if archive.exists():
            archive.replace(_CLASSES)
        new.rename(self._properties)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _configuration(self) -> dict[str, object]:
        own = {"PLAINTEXT": self.bootstrap_servers, "CONTROLLER": f"{HOST}:{self._controller_port}"}
        listeners = own | dict(self._listeners)
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "data",
            **ONE_NODE,
            **self._settings,
        }

    def _answers(self) -> bool:
        return answers(self.port) and asyncio.run(_describes(self.bootstrap_servers))


class GuardedKafka(ApacheKafka):
    """A broker with ACLs. Clients sign in as `levelsync` at another listener. `PLAINTEXT` is an operator's."""

    def __init__(self, folder: Path) -> None:
        address = f"{HOST}:{free_port()}"
        super().__init__(folder, listeners={"SASL_PLAINTEXT": address}, settings=_GUARD)
        self.access = {
            "kafka_bootstrap_servers": address,
            "kafka_security_protocol": "SASL_PLAINTEXT",
            "kafka_sasl_username": "levelsync",
            "kafka_sasl_password": SecretStr(_PASSWORD),
        }
        """Settings of the service's access."""


_PASSWORD = "a-password-of-the-tests"  # noqa: S105 - of the tests only
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_GUARD: dict[str, object] = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{_LOGIN} user_levelsync="{_PASSWORD}";',
    # The broker mostly waits, and each of these threads wakes three times a second.
    "num.network.threads": 1,
    "num.io.threads": 2,
    "background.threads": 2,
}


ONE_NODE = {
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,  # the default of 50 only costs start-up time
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    # A killed broker may register again when its old session ends, by default after 9 s.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    "message.max.bytes": 20_000_000,  # records of 10 MB are tested
    "auto.create.topics.enable": "false",  # a topic that was not created must be missing
    "delete.topic.enable": "true",
    "log.initial.task.delay.ms": 500,
    "log.retention.check.interval.ms": 1000,  # tests of retention wait for it
    "log.segment.delete.delay.ms": 1000,  # every test's topics are deleted, and their files soon after
    "log.cleaner.dedupe.buffer.size": 16_777_216,  # taken from the heap at start
    "metadata.max.idle.interval.ms": 0,  # no record every half second that says that nothing has changed
}


def _java(classes: str, main_class: str, *arguments: str) -> list[str]:
    log = f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}"
    return ["java", *_JVM, classes, log, "-cp", f"{JARS}/*", main_class, *arguments]


async def _describes(bootstrap_servers: str) -> bool:
    """Return whether the broker answers requests. It accepts connections a moment earlier."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=2000)
    try:
        await client.start()
        answer = await client.describe_cluster()
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()
    return bool(answer["brokers"])
