"""Runs a server for as long as its owner wants it: ``guard.py OPTIONS COMMAND…``, OPTIONS a JSON object.

A script of its own, run in a process between the owner and the server. The owner holds the write end of a pipe that
is this script's stdin. When the pipe closes, because the owner says stop or because the owner died (`kill -9`
included), the server gets its stop signal, and SIGKILL when it does not end in time. A pipe, because it works on
Linux and macOS alike.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time


def _leave_with(server: "subprocess.Popen[bytes]") -> None:
    os._exit(server.wait() & 0xFF)


def main() -> None:
    """Start the server, wait for the pipe's end or the server's, and leave with the server's exit code."""
    options, command = json.loads(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: os.close(0))  # somebody stops the guard: as if the owner had
    user = {"user": options["uid"], "group": options["gid"], "extra_groups": []} if "uid" in options else {}
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, **user)  # noqa: S603 - the owner's own command
    threading.Thread(target=_leave_with, args=(server,), daemon=True).start()
    try:
        while os.read(0, 1):
            pass
    except OSError:  # closed by SIGTERM
        pass
    server.send_signal(options["stop_signal"])
    time.sleep(options["stop_seconds"])  # the thread ends the process as soon as the server has ended
    server.kill()
    time.sleep(options["stop_seconds"])


if __name__ == "__main__":
    main()
