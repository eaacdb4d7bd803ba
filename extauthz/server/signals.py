"""Signals as things to wait for, not as interruptions: blocked in every thread, taken one by one by the main thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

END = frozenset({signal.SIGTERM, signal.SIGINT})
RELOAD = signal.SIGHUP
HANDLED = END | {RELOAD}


@contextmanager
def held() -> Iterator[None]:
    """Keep the handled signals waiting. Entered before any thread is started, since threads inherit what is blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        while signal.sigtimedwait(HANDLED, 0) is not None:
            pass  # What came while everything was ending has been obeyed.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def next_signal(seconds: float | None = None) -> signal.Signals | None:
    """Wait for the next handled signal; None after `seconds`."""
    if seconds is None:
        return signal.Signals(signal.sigwait(HANDLED))
    received = signal.sigtimedwait(HANDLED, seconds)
    return None if received is None else signal.Signals(received.si_signo)


def end_requested() -> bool:
    """Whether a signal to end is waiting."""
    return not END.isdisjoint(signal.sigpending())
