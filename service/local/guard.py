"""Run a server until its owner stops it or ends: ``guard.py OPTIONS COMMAND…``, where OPTIONS is a JSON object.

This script runs in a process between the owner and the server. Its stdin is a pipe whose write end belongs to the
owner. The pipe closes when the owner stops the server, and also when the owner ends, even by `kill -9`. The script then
sends the server its stop signal, and SIGKILL if the server does not end in time. A pipe works on Linux and on macOS.
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
    """Start the server, wait until the pipe closes or the server ends, and exit with the server's exit code."""
    options, command = json.loads(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: os.close(0))  # stopping the guard stops the server
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
