"""One sending process: lays out its share of the arrivals, feeds a sender, and tells the parent what came of it.

The parent says what to do through a pipe: one `Job` first, which is answered with `Ready`, then a `Step` at a time, and
`Stop` to cut a step short. The answers are `Update`s while a step runs and one `Finished` at its end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from time import monotonic_ns

from extauthz.errors import ExtAuthzError
from extauthz.loadtest import sender_choice
from extauthz.loadtest.arrivals import NANOSECONDS, Arrivals
from extauthz.loadtest.orders import STOP_SECONDS, Failed, Finished, Job, Ready, Step, Update
from extauthz.loadtest.sender import Sender
from extauthz.loadtest.tally import Tally, Window

TICK_SECONDS = 0.02
UPDATE_SECONDS = 0.25
AHEAD_SECONDS = 1.0
"""How far ahead of time arrivals are given to the sender: what this process may be held up without a late call."""

_OVERDUE_SECONDS = 5.0
_SPIN_SHARE = 0.1
_LONGEST_SPIN = 60e-6


def work(pipe: Connection) -> None:
    """Serve the parent until the pipe is closed."""
    # Ctrl-C reaches the whole process group; what it means is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        job = pipe.recv()
        sender_choice.load(job.choice)
        pipe.send(Ready())
        while True:
            order = pipe.recv()
            if isinstance(order, Step):
                try:
                    _StepRun(pipe, job, order).run()
                except (ExtAuthzError, OSError, MemoryError) as error:
                    pipe.send(Failed(f"{type(error).__name__}: {error}"))


def spin_for(rate: float) -> float:
    """How long (seconds) a sender may wait awake for each call: at most a tenth of one core's time."""
    return min(_SPIN_SHARE / rate, _LONGEST_SPIN)


class _StepRun:
    def __init__(self, pipe: Connection, job: Job, step: Step) -> None:
        self._pipe = pipe
        self._timeout = job.wire.timeout
        start = step.begin + round(step.warmup * NANOSECONDS)
        end = start + round(step.seconds * NANOSECONDS)
        self._begin, self._end = step.begin, end
        self._window = Window(start, end, round(step.slice_seconds * NANOSECONDS), job.wire.protocol)
        self._arrivals = Arrivals(
            job.arrivals, step.rate, step.warmup + step.seconds, job.share, job.seed + step.number
        )
        self._drawing = job.corpus.drawing((job.seed, step.number, job.share.worker))
        self._due = self._arrivals.until(0)
        self._which = self._drawing.draw(0)
        wire = replace(job.wire, spin=spin_for(step.rate / job.share.workers))
        self._sender: Sender = sender_choice.load(job.choice)(wire, job.corpus.payloads)
        self._tally = Tally()
        self._offered = self._ended = 0

    def run(self) -> None:
        before = _cpu_seconds()
        self._sender.open()
        try:
            self._send()
        finally:
            self._sender.close()
        self._collect()
        self._report()
        statistics = self._sender.statistics()
        used = _cpu_seconds() - before
        self._pipe.send(Finished(used, statistics["peak_in_flight"], statistics["opened"]))

    def _send(self) -> None:
        reported = self._begin
        overdue = self._end + round((self._timeout + _OVERDUE_SECONDS) * NANOSECONDS)
        while (now := monotonic_ns()) < overdue:
            self._offer(now)
            self._collect()
            if now - reported >= UPDATE_SECONDS * NANOSECONDS:
                reported = now
                self._report()
            expected = self._offered - self._sender.statistics()["withdrawn"]
            if self._arrivals.exhausted and not len(self._due) and self._ended >= expected:
                return
            if self._pipe.poll(TICK_SECONDS):
                self._pipe.recv()  # a Stop; EOFError when the parent is gone
                self._offer(monotonic_ns())  # what came to be due while this process was held up
                self._arrivals.exhausted = True
                self._due = self._due[:0]
                self._sender.withdraw()
                overdue = min(overdue, monotonic_ns() + round(STOP_SECONDS * NANOSECONDS))

    def _offer(self, now: int) -> None:
        if not len(self._due) and not self._arrivals.exhausted:
            ahead = now - self._begin + AHEAD_SECONDS * NANOSECONDS
            self._due = self._arrivals.until(ahead) + self._begin
            self._which = self._drawing.draw(len(self._due))
        count = self._sender.offer(self._due, self._which) if len(self._due) else 0
        self._offered += count
        self._due, self._which = self._due[count:], self._which[count:]

    def _collect(self) -> None:
        records = self._sender.collect()
        self._ended += len(records)
        self._tally.record(records, self._window)

    def _report(self) -> None:
        self._pipe.send(Update(self._tally))
        self._tally = Tally()


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])))
