"""Runs `extauthz` commands in forks of one process, so that a page with fifty of them does not import for 20 seconds.

A client (`doc_command.py`) hands over its arguments, directory, environment and standard streams, and gets the exit
status. Used for the commands that touch no network; the others are run as they are.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module

COMMANDS = ("check", "token", "validate", "envoy-config", "version")


def serve(path: str, run: Callable[[list[str]], None]) -> None:
    """Answer clients until killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(client, run)
            client.close()


def _answer(client: socket.socket, run: Callable[[list[str]], None]) -> None:
    """In the child: become the client's command. Ends the process."""
    status = 70
    try:
        message, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
        while not message.endswith(b"\n"):
            message += client.recv(1 << 20)
        asked = json.loads(message)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(asked["directory"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        try:
            run(asked["arguments"])
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        client.sendall(b"%d\n" % status)
        os._exit(0)


if __name__ == "__main__":
    from extauthz.cli import main

    for name in COMMANDS:
        import_module(f"extauthz.cli.{name.replace('-', '_')}")
    serve(sys.argv[1], main)
