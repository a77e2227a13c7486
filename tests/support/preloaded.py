"""Commands in forks of a process that has imported everything: each is spared the second that its imports take.

The process is a program with one thread, so that a fork is safe. A command has an environment, a folder, streams and an
exit code of its own, as if a shell had started it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

from tests.support.repository import ROOT

BIN = Path(sys.executable).parent
_ENTRIES = {"levelsync": "service.__main__", "alembic": "alembic.config"}
_SECONDS = 60
Result = subprocess.CompletedProcess[str]


def run(
    program: str, *arguments: str, env: Mapping[str, str], cwd: Path | None = None, stdin: str | None = None
) -> Result:
    """Run `levelsync`, `alembic` or a Python to its end, with this environment and no other variable."""
    if program not in _ENTRIES:
        command = [str(BIN / program), *arguments]
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603 - ours
    with (
        tempfile.TemporaryFile("w+") as request,
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        json.dump({"arguments": [program, *arguments], "env": dict(env), "cwd": str(cwd or Path.cwd())}, request)
        given.write(stdin or "")
        for file in (request, given):
            file.seek(0)
        connection.connect(_address())
        socket.send_fds(connection, [b"."], [file.fileno() for file in (request, given, out, err)])
        code = connection.recv(20)
        assert code, "the process that runs commands has died"
        for file in (out, err):
            file.seek(0)
        return Result([program, *arguments], int(code), out.read(), err.read())


@cache
def _address() -> str:
    """Start the process that forks; it ends with this one."""
    folder = tempfile.mkdtemp(prefix="levelsync-commands-")
    address = f"{folder}/socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
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
        Path(address).unlink()
        Path(folder).rmdir()

    atexit.register(end)
    return address


def main() -> None:
    """Fork a command for each connection, until standard input ends."""
    import service  # noqa: PLC0415 - the program's part

    for module in pkgutil.walk_packages(service.__path__, "service."):
        importlib.import_module(module.name)
    importlib.import_module("alembic.config")
    gc.collect()
    gc.freeze()  # a fork shares these pages as long as nothing looks at them
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
    """Do what is asked in another fork, and answer its exit code."""
    _, (request, *streams), _, _ = socket.recv_fds(connection, 1, 4)
    if command := os.fork():
        _, status = os.waitpid(command, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with open(request) as file:  # noqa: PTH123 - a descriptor
        asked = json.load(file)
    signal.alarm(_SECONDS)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv[:] = asked["arguments"]
    code = _exit_code(importlib.import_module(_ENTRIES[sys.argv[0]]).main)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # without the half second in which Python would take every module apart


def _exit_code(main: Callable[[], None]) -> int:
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
