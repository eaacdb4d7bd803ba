"""The way down, in the order that loses no call: say so, go on answering until the peer has noticed, then close."""

from __future__ import annotations

import logging
import time
from threading import Thread
from typing import Protocol

from extauthz.server import signals

_log = logging.getLogger(__name__)

NOTICE_SHARE = 0.6
"""The part of `--drain` in which calls are still taken, so that the peer's health check notices; the rest is for calls
in flight."""

_LOOK_SECONDS = 0.02


class Drainable(Protocol):
    """What can go down; see `service.Site`."""

    def withdraw(self) -> None: ...

    def finish(self, seconds: float) -> bool: ...

    def stop(self) -> None: ...


def drain(server: Drainable, seconds: float) -> int:
    """Go down within `seconds`; a second signal to end does so at once. Returns the exit status."""
    notice = seconds * NOTICE_SHARE
    deadline = time.monotonic() + seconds
    server.withdraw()
    _log.info("draining: NOT_SERVING from now on, still answering for %.1f s", notice)
    complete: list[bool] = []

    def finish() -> None:
        time.sleep(notice)
        complete.append(server.finish(max(0.0, deadline - time.monotonic())))

    finishing = Thread(target=finish, name="drain", daemon=True)
    finishing.start()
    while finishing.is_alive():
        received = signals.next_signal(_LOOK_SECONDS)
        if received in signals.END:
            _log.warning("%s received again: ending at once", received.name)
            server.stop()
            return 128 + received
    if complete != [True]:
        _log.warning("calls were still in flight when --drain was over, and were cut off")
    _log.info("drained")
    return 0
