"""The worker processes of one target: started, told what to send, listened to, and ended whatever happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from time import monotonic_ns
from types import TracebackType

from extauthz.errors import ExtAuthzError
from extauthz.loadtest.arrivals import NANOSECONDS
from extauthz.loadtest.orders import STOP_SECONDS, Failed, Finished, Job, Ready, Step, Stop, Update
from extauthz.loadtest.tally import Tally

LEAD_SECONDS = 0.15
"""From the order to begin to the first call: time for workers to connect."""

_POLL_SECONDS = 0.1
_END_SECONDS = 5.0


class WorkerLost(ExtAuthzError):
    """A worker process ended by itself."""


@dataclass(slots=True)
class StepSeen:
    """What all workers together saw of a step. `stopped_at` (CLOCK_MONOTONIC ns) is set when it was cut short."""

    tally: Tally = field(default_factory=Tally)
    cpu_seconds: float = 0.0
    peak_in_flight: int = 0
    connections_opened: int = 0
    stopped_at: int | None = None


class Crew:
    """Workers, one for each job. A context manager: they are gone when the block is left."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Crew:
        try:
            for job in self._jobs:
                ours, theirs = Pipe()
                with theirs:
                    command = [sys.executable, "-m", "extauthz.loadtest.worker", str(theirs.fileno())]
                    # In a session of its own: Ctrl-C is for the parent, which lets workers finish what is under way.
                    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
                self._processes.append(process)
                self._pipes.append(ours)
                ours.send(job)
            for pipe in self._pipes:
                self._hear(pipe, StepSeen())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for pipe in self._pipes:
            pipe.close()  # which a worker takes as the order to go
        for process in self._processes:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._pipes, self._processes = [], []

    def run(
        self,
        step: Callable[[int], Step],
        stopped: Callable[[], bool],
        watch: Callable[[StepSeen, int], None] = lambda seen, now: None,
    ) -> StepSeen:
        """Run the step that `step` gives for its beginning (CLOCK_MONOTONIC ns), until it is over or `stopped` says so.

        `watch` sees what has come in so far, and the time, several times a second. Raises WorkerLost.
        """
        seen = StepSeen()
        order = step(monotonic_ns() + round(LEAD_SECONDS * NANOSECONDS))
        for pipe in self._pipes:
            pipe.send(order)
        busy = list(self._pipes)
        while busy:
            ready = wait(busy, _POLL_SECONDS)
            for pipe in [pipe for pipe in busy if pipe in ready]:
                if self._hear(pipe, seen):
                    busy.remove(pipe)
            now = monotonic_ns()
            watch(seen, now)
            if seen.stopped_at is None and stopped():
                seen.stopped_at = now
                for pipe in busy:
                    pipe.send(Stop())
            if seen.stopped_at is not None and now - seen.stopped_at > (STOP_SECONDS + _END_SECONDS) * NANOSECONDS:
                raise WorkerLost("a worker did not end when it was told to")
        return seen

    @staticmethod
    def _hear(pipe: Connection, seen: StepSeen) -> bool:
        """Take in one message; whether it was the worker's last of this step."""
        try:
            message = pipe.recv()
        except (EOFError, OSError):  # at the end of a message, or within one
            raise WorkerLost("a worker process ended before its work was done; it says why above") from None
        if isinstance(message, Update):
            seen.tally.add(message.tally)
            return False
        if isinstance(message, Failed):
            raise WorkerLost(message.reason)
        if isinstance(message, Ready):
            return False
        assert isinstance(message, Finished)
        seen.cpu_seconds += message.cpu_seconds
        seen.peak_in_flight += message.peak_in_flight
        seen.connections_opened += message.connections_opened
        return True
