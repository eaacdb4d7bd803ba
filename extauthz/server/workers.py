"""Several processes that answer calls, seen as one site: started, replaced, reloaded and drained together.

Workers are fresh interpreters, not forks: threads, gRPC and TLS libraries do not survive a fork. Each has an address of
its own, or all share one port and the kernel spreads connections over them. A worker that ends by itself is replaced.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Event, Lock
from typing import Any, TypeVar

from extauthz.errors import ExtAuthzError
from extauthz.server import listeners
from extauthz.server.control import WorkerGone
from extauthz.server.listeners import Address, for_worker
from extauthz.server.metrics import NO_LABELS, Snapshot, merge, only_counters
from extauthz.server.options import ServeOptions
from extauthz.server.process import ProcessStatistics
from extauthz.server.worker_process import WorkerProcess

_log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
"""How long the admin port waits for a worker; what it counted last is used when it does not answer."""

END_SECONDS = 2.0
"""How long workers that were told to end may take before they are killed."""

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A worker that has lived so long is replaced at once; sooner, and the wait doubles from one end to the next."""

_Result = TypeVar("_Result")


class Workers:
    """See `service.Site`."""

    def __init__(self, options: ServeOptions) -> None:
        """Raises UsageError when an address that workers share cannot be had."""
        self._options = options
        self._share = any(not address.is_per_worker and not address.is_unix for address in options.addresses)
        self._held: list[socket.socket] = []
        self._addresses = tuple(self._hold(address) for address in options.addresses)
        self._changing = Lock()
        self._slots = [_Slot(number, self._start, self._changing) for number in range(options.workers)]
        # Two pools: what only looks must not wait for what changes, a reload that compiles for seconds.
        self._pool = ThreadPoolExecutor(options.workers, thread_name_prefix="worker")
        self._lookers = ThreadPoolExecutor(options.workers, thread_name_prefix="worker-look")
        self._process = ProcessStatistics()
        self._serving = False

    def load(self) -> str:
        """See `Site`."""
        return self._all([self._pool.submit(slot.load) for slot in self._slots])[0]

    def open(self) -> Sequence[Address]:
        """See `Site`."""
        opened = self._all([self._pool.submit(slot.open) for slot in self._slots])
        self._serving = True
        return list(dict.fromkeys(address for addresses in opened for address in addresses))

    def reload(self) -> str:
        """See `Site`."""
        with self._changing:
            try:
                self._everywhere("prepare")
            except BaseException:
                self._everywhere("discard")
                raise
            committed = self._everywhere("commit")
        return str(committed[0]) if committed else "no worker lives; the next ones begin with what is there"

    def withdraw(self) -> None:
        """See `Site`."""
        for slot in self._slots:
            slot.leave_alone()
        self._serving = False
        self._everywhere("withdraw", seconds=ANSWER_SECONDS)

    def finish(self, seconds: float) -> bool:
        """See `Site`."""
        finished = self._everywhere("finish", seconds, seconds=seconds + ANSWER_SECONDS)
        self.stop()
        return all(finished) and len(finished) == len(self._slots)

    def stop(self) -> None:
        """See `Site`."""
        for slot in self._slots:
            slot.leave_alone()
            slot.hang_up()
        deadline = time.monotonic() + END_SECONDS
        for slot in self._slots:
            slot.wait(deadline - time.monotonic())
        for held in self._held:
            held.close()
        self._pool.shutdown(wait=False)
        self._lookers.shutdown(wait=False)

    def serving(self) -> bool:
        """See `Site`."""
        return self._serving and any(slot.alive() for slot in self._slots)

    def snapshot(self) -> Snapshot:
        """See `Site`."""
        parts = [part for parts in self._lookers.map(_Slot.snapshots, self._slots) for part in parts]
        # Of all processes this one began first: that a worker was replaced must not look like a restart.
        found = merge([self._process.snapshot(), *parts])
        found["workers"] = {NO_LABELS: sum(slot.alive() for slot in self._slots)}
        found["worker_restarts"] = {NO_LABELS: sum(slot.restarts for slot in self._slots)}
        return found

    def describe(self) -> Mapping[str, Any]:
        """See `Site`."""
        workers = [slot.describe() for slot in self._slots]
        for slot in self._slots:
            with suppress(WorkerGone, TimeoutError):
                return {**slot.look("describe"), "workers": workers}
        return {"policies": [], "workers": workers}

    def missing(self) -> Sequence[str]:
        """See `Site`."""
        found: dict[str, None] = {}
        for slot in self._slots:
            with suppress(WorkerGone, TimeoutError):
                found.update(dict.fromkeys(slot.look("missing")))
        return list(found)

    @staticmethod
    def _all(futures: Sequence[Future[_Result]]) -> list[_Result]:
        """The results of all; raises the first error, once all are done."""
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]

    def _everywhere(self, command: str, *arguments: Any, seconds: float | None = None) -> list[Any]:
        """Run a command in all workers that live, at once, and return their results.

        Raises the first error, once all are done. A worker that ends meanwhile does not count: its successor begins
        with what is current then. Nor does one that takes longer than `seconds`.
        """
        futures = [self._pool.submit(slot.ask, command, *arguments, seconds=seconds) for slot in self._slots]
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, (WorkerGone, TimeoutError)):
                raise error
        return [future.result() for future in futures if future.exception() is None]

    def _hold(self, address: Address) -> Address:
        """Keep a shared port for this server while workers come and go; which one port 0 became is settled here."""
        if address.is_per_worker or address.is_unix:
            return address
        # Sharing is by consent of both sides: another server must be found out before we consent.
        listeners.bind(address).close()
        held = listeners.reserve(address)
        self._held.append(held)
        return listeners.bound(held)

    def _start(self, number: int, gone: Callable[[], None]) -> WorkerProcess:
        addresses = [for_worker(address, number) for address in self._addresses]
        return WorkerProcess(self._options, addresses, number, share=self._share, gone=gone)


class _Slot:
    """The place of one worker: the process that has it now, and what those before it have counted.

    `changing` is held while a successor starts, and by whoever changes all workers at once, so that none is missed.
    """

    def __init__(self, number: int, start: Callable[[int, Callable[[], None]], WorkerProcess], changing: Lock) -> None:
        self.restarts = 0
        self._number = number
        self._start = start
        self._changing = changing
        self._counted: Snapshot = {}
        self._latest: Snapshot = {}
        self._counting = Lock()
        self._serving = False
        self._left_alone = Event()
        self._began = 0.0
        self._generation = 0
        self._backoff = 0.0
        self._process = self._begin()

    def load(self) -> str:
        """Let the worker load the policies. Raises what is wrong with them, or WorkerGone."""
        return self._process.set_up()

    def open(self) -> Sequence[Address]:
        """Let the worker listen and answer; from now on it is replaced when it ends."""
        addresses: Sequence[Address] = self._process.ask("open")
        self._serving = True
        if self._process.gone:
            # Just now, so that `_gone` did not take it for one that serves.
            raise WorkerGone("the worker ended as soon as it had begun")
        return addresses

    def ask(self, command: str, *arguments: Any, seconds: float | None = None) -> Any:
        """See `Caller.ask`."""
        return self._process.ask(command, *arguments, seconds=seconds)

    def alive(self) -> bool:
        """Whether it answers calls, as far as one can know."""
        return self._serving

    def leave_alone(self) -> None:
        """Replace it no more."""
        self._left_alone.set()

    def hang_up(self) -> None:
        """Tell the process to end."""
        self._serving = False
        self._process.hang_up()

    def wait(self, seconds: float) -> None:
        """Wait for its end, and kill it when it takes longer."""
        self._process.wait(seconds)

    def look(self, command: str) -> Any:
        """Ask something that changes nothing, of a worker that serves, for a short while. Raises as `Caller.ask`."""
        if not self._serving:
            raise WorkerGone("the worker is not serving")
        return self._process.ask(command, seconds=ANSWER_SECONDS)

    def snapshots(self) -> Sequence[Snapshot]:
        """What all processes of this place have counted."""
        process = self._process
        try:
            latest = self.look("snapshot")
        except (WorkerGone, TimeoutError):
            latest = None
        with self._counting:
            # A process that has ended meanwhile is already among those counted.
            if latest is not None and self._serving and process is self._process:
                self._latest = latest
            return self._counted, self._latest

    def describe(self) -> Mapping[str, Any]:
        """For people: number, process id, state."""
        state = "serving" if self._serving else "not serving"
        return {"worker": self._number, "pid": self._process.pid, "state": state, "restarts": self.restarts}

    def _begin(self) -> WorkerProcess:
        self._began = time.monotonic()
        self._generation += 1
        return self._start(self._number, partial(self._gone, self._generation))

    def _gone(self, generation: int) -> None:
        """In the thread that noticed the end: replace the process, as often as it takes."""
        if self._left_alone.is_set() or generation != self._generation or not self._serving:
            return
        self._serving = False
        with self._counting:
            self._counted = merge([self._counted, only_counters(self._process.farewell or self._latest)])
            self._latest = {}
        _log.error("worker %d (pid %d) %s", self._number, self._process.pid, self._process.obituary())
        self._backoff = _next_backoff(self._backoff, time.monotonic() - self._began)
        while not self._left_alone.wait(self._backoff):
            with self._changing:
                # Serving: another thread, that of a process which ended as soon as it had begun, was faster.
                if self._left_alone.is_set() or self._serving or self._replaced():
                    return
            self._backoff = _next_backoff(self._backoff, 0.0)

    def _replaced(self) -> bool:
        try:
            self._process = self._begin()
            self.load()
            self.open()
        except (ExtAuthzError, OSError) as error:
            _log.error("worker %d cannot be replaced yet: %s", self._number, str(error).replace("\n", "; "))
            self._serving = False
            self._process.hang_up()
            self._process.wait(END_SECONDS)
            return False
        self.restarts += 1
        _log.info("worker %d was replaced by pid %d", self._number, self._process.pid)
        return True


def _next_backoff(before: float, lived: float) -> float:
    if lived >= STEADY_SECONDS:
        return 0.0
    return min(max(before * 2, FIRST_BACKOFF_SECONDS), MAX_BACKOFF_SECONDS)
