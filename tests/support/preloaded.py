"""Commands in forks of a process that has imported everything, which saves the second that imports take.

The process is a program with one thread, so that a fork is safe. A command has its own environment, folder, streams and
exit code, as if a shell had started it.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.support.repository import ROOT

BIN = Path(sys.executable).parent
_ENTRIES = {"levelsync": "service.__main__", "alembic": "alembic.config"}
_SECONDS = 60
_NUMBER = struct.Struct("q")
Result = subprocess.CompletedProcess[str]


def run(
    program: str, *arguments: str, env: Mapping[str, str], cwd: Path | None = None, stdin: str | None = None
) -> Result:
    """Run `levelsync`, `alembic`, a script or Python to its end, in exactly this environment.

    Only `python` is a new process. The path of a script runs in a fork, as the commands do.
    """
    if program == "python":
        command = [str(BIN / program), *arguments]
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603 - ours
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin or "")
        given.seek(0)
        code = Command([program, *arguments], env, cwd, (given, out, err)).wait(_SECONDS)
        for file in (out, err):
            file.seek(0)
        return Result([program, *arguments], code, out.read(), err.read())


class Command:
    """A running command. It ends with this process at the latest."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | None,
        streams: tuple[IO[Any], IO[Any], IO[Any]],
    ) -> None:
        """Start it. `streams` are its standard input, output and error."""
        self._code: int | None = None
        self._lock = threading.Lock()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address())
        with tempfile.TemporaryFile("w+") as request:
            json.dump({"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}, request)
            request.seek(0)
            socket.send_fds(self._connection, [b"."], [file.fileno() for file in (request, *streams)])
        self.pid = self._number()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended within `timeout` seconds.
        """
        with self._lock:
            if self._code is None:
                if not select.select([self._connection], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
                self._code = self._number()
                self._connection.close()
            return self._code

    def _number(self) -> int:
        received = self._connection.recv(_NUMBER.size)
        assert received, "the process that runs commands has died"
        number: int = _NUMBER.unpack(received)[0]
        return number


class Server:
    """A command that runs until it is stopped, with the methods of `ServerProcess`. Its output goes to `log`."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> None:
        self._arguments, self._env, self._folder, self._log = arguments, env, folder, log
        self._guard: Command | None = None

    def start(self) -> None:
        with self._log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            self._guard = Command(self._arguments, self._env, self._folder, (nothing, log, log))

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after 12 s."""
        if self.running and self._guard is not None:
            os.kill(self._guard.pid, signal.SIGTERM)
            try:
                self._guard.wait(12)
            except subprocess.TimeoutExpired:
                os.kill(self._guard.pid, signal.SIGKILL)
                self._guard.wait()
        self._guard = None

    @property
    def running(self) -> bool:
        if self._guard is None:
            return False
        try:
            self._guard.wait(0)
        except subprocess.TimeoutExpired:
            return True
        return False


SHARED = "LEVELSYNC_TEST_COMMANDS"
"""The socket of a process that forks, which another process has started."""


@cache
def address() -> str:
    """Return the socket of the process that forks. Start it if there is none to share; it ends with this process."""
    if SHARED in os.environ:
        return os.environ[SHARED]
    folder = tempfile.mkdtemp(prefix="levelsync-commands-")
    path = Path(folder) / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(100)
        process = subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-m", __name__, str(listening.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            pass_fds=[listening.fileno()],
        )

    def end() -> None:
        process.communicate()
        path.unlink()
        path.parent.rmdir()

    atexit.register(end)
    return str(path)


def main() -> None:
    """Fork a command for each connection, until standard input ends."""
    import service  # noqa: PLC0415 - the program's part

    for module in pkgutil.walk_packages(service.__path__, "service."):
        importlib.import_module(module.name)
    importlib.import_module("alembic.config")
    gc.collect()
    gc.freeze()  # the collector would write to pages that the forks share
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if not os.fork():
                listening.close()
                break
            connection.close()
        else:
            return
    _become_a_command(connection)


def _become_a_command(connection: socket.socket) -> NoReturn:
    """Run the requested command in another fork; answer its process id and its exit code."""
    _, (request, *streams), _, _ = socket.recv_fds(connection, 1, 4)
    ended, lives = os.pipe()
    if command := os.fork():
        os.close(lives)
        connection.sendall(_NUMBER.pack(command))
        watched: list[Any] = [connection, ended]
        if ended not in select.select(watched, [], [])[0]:
            os.kill(command, signal.SIGKILL)  # the process that waited for it has ended
        _, status = os.waitpid(command, 0)
        with suppress(OSError):
            connection.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os._exit(0)
    os.setsid()
    os.close(ended)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C there interrupts it
    with open(request) as file:  # noqa: PTH123 - a descriptor
        asked = json.load(file)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv[:] = asked["arguments"]
    code = _exit_code(_program(sys.argv[0]))
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # without the half second that Python takes to tear down its modules


def _program(name: str) -> Callable[[], object]:
    """Return the function that runs a command, or the script with this path."""
    if name not in _ENTRIES:
        return partial(runpy.run_path, name, run_name="__main__")
    main: Callable[[], object] = importlib.import_module(_ENTRIES[name]).main
    return main


def _exit_code(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, str):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - as Python itself ends
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
