"""One worker as its parent sees it: a process, and the line to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extauthz.server.control import Caller
from extauthz.server.listeners import Address
from extauthz.server.metrics import Snapshot
from extauthz.server.options import ServeOptions


class WorkerProcess:
    """A started worker. `gone` is called, in a thread of its own, when it has ended."""

    def __init__(
        self,
        options: ServeOptions,
        addresses: Sequence[Address],
        number: int,
        *,
        share: bool,
        gone: Callable[[], None],
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: what lies in the current directory must not be imported in place of a library.
                [sys.executable, "-P", "-m", "extauthz.server.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
            )
        self._caller = Caller(ours, gone)
        self._setup = (options, tuple(addresses), number, share)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def farewell(self) -> Snapshot | None:
        """What it had counted when it ended; None when it was killed."""
        last_words: Snapshot | None = self._caller.farewell
        return last_words

    def set_up(self) -> str:
        """Let it load the policies; returns what they are. Raises PolicyError, UsageError, WorkerGone."""
        return str(self.ask("load", *self._setup))

    def ask(self, command: str, *arguments: Any, seconds: float | None = None) -> Any:
        """See `Caller.ask`."""
        return self._caller.ask(command, *arguments, seconds=seconds)

    @property
    def gone(self) -> bool:
        """Whether it has ended, or we have hung up."""
        return self._caller.closed

    def hang_up(self) -> None:
        """Tell it to end."""
        self._caller.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end, and kill it when it takes longer."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def obituary(self) -> str:
        """How it ended, in words. Waits for the end."""
        status = self._process.wait()
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _environment() -> dict[str, str]:
    """Ours, with this very package first where modules are looked for."""
    home = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{path}" if path else home}
