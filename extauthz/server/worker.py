"""The main module of a worker process: a `Service` that does what its parent says, and drains when the parent is gone.

Signals that a terminal sends to the whole process group are the parent's business; SIGTERM to one worker drains it, and
the parent replaces it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from threading import Thread
from typing import Any

from extauthz.errors import UsageError
from extauthz.server import signals
from extauthz.server.control import Responder
from extauthz.server.drain import NOTICE_SHARE
from extauthz.server.listeners import Address
from extauthz.server.logs import Log
from extauthz.server.metrics import NO_LABELS, Snapshot, merge
from extauthz.server.options import ServeOptions
from extauthz.server.service import Service

LEFT_ALONE_SECONDS = 1.0
"""How long calls in flight have when the parent is gone and says no more."""


class Worker:
    """Answers the parent's commands; their names are those of `Site`, and `load` brings everything else along."""

    def __init__(self) -> None:
        self.service: Service | None = None
        self.drain = 0.0
        self._log: Log | None = None
        self._finished = False

    def load(self, options: ServeOptions, addresses: Sequence[Address], number: int, share: bool) -> str:
        """Set up, read and compile the policies."""
        self._log = Log(options.log_format, options.log_level)
        self._log.start()
        self.drain = options.drain
        service = Service(options, addresses, worker=number, share=share)
        loaded = service.load()
        self.service = service
        return loaded

    def command(self, name: str, *arguments: Any) -> Any:
        """Run one command of the parent."""
        if name == "load":
            return self.load(*arguments)
        if self.service is None:
            raise UsageError("the worker has not loaded its policies")
        if name == "snapshot":
            return self.snapshot(self.service)
        if name == "finish":
            self._finished = True
        return getattr(self.service, name)(*arguments)

    def snapshot(self, service: Service) -> Snapshot:
        """The metrics of this process."""
        dropped = self._log.writer.dropped if self._log else 0
        return merge([service.snapshot(), {"log_lines_dropped": {NO_LABELS: dropped}}])

    def end(self, *, notice: float, seconds: float) -> None:
        """Drain, unless the parent has seen to it, and end."""
        if self.service is not None and not self._finished:
            self.service.withdraw()
            time.sleep(notice)
            self.service.finish(seconds)
        if self._log is not None:
            self._log.close()


def main(descriptor: int) -> None:
    """Serve until the parent hangs up or SIGTERM comes."""
    worker = Worker()
    responder = Responder(descriptor)
    hung_up: list[bool] = []

    def respond() -> None:
        responder.serve(worker.command)
        hung_up.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

    with signals.held():
        Thread(target=respond, name="parent", daemon=True).start()
        while signals.next_signal() is not signal.SIGTERM:
            pass
        if hung_up:
            worker.end(notice=0.0, seconds=LEFT_ALONE_SECONDS)
        else:
            worker.end(notice=worker.drain * NOTICE_SHARE, seconds=worker.drain * (1 - NOTICE_SHARE))
            if worker.service is not None:
                responder.farewell(worker.snapshot(worker.service))


if __name__ == "__main__":
    main(int(sys.argv[1]))
