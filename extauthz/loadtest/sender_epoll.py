"""The portable sender of HTTP/1.1 requests: sockets and epoll in Python, with TLS too."""

from __future__ import annotations

import contextlib
import os
import select
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from time import monotonic_ns

from extauthz.loadtest.arrivals import NANOSECONDS
from extauthz.loadtest.http1_connection import Call, Http1Connection, State
from extauthz.loadtest.ledger import Ledger
from extauthz.loadtest.outcomes import Integers, Outcome, Records
from extauthz.loadtest.sender import Numbers, Payloads, Wire
from extauthz.loadtest.tls import client_context

_LONGEST_WAIT = 1.0


class EpollSender:
    """A `Sender` for HTTP/1.1."""

    def __init__(self, wire: Wire, payloads: Payloads) -> None:
        self._wire = wire
        self._timeout = round(wire.timeout * NANOSECONDS)
        self._ledger = Ledger()
        self._waiting: deque[Call] = deque()
        self._under_way: dict[int, Call] = {}
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._stopping = False
        self._error: BaseException | None = None
        context: ssl.SSLContext | None = client_context(wire.tls) if wire.tls is not None else None
        self._connections = [Http1Connection(wire, payloads, context, self._epoll) for _ in range(wire.connections)]
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def open(self) -> None:
        self._thread.start()

    def offer(self, due: Integers, payloads: Numbers) -> int:
        count = self._ledger.offer(due, payloads)
        os.eventfd_write(self._wake_fd, 1)
        return count

    def collect(self) -> Records:
        if self._error is not None:
            raise self._error
        return self._ledger.collect()

    def withdraw(self) -> None:
        self._ledger.withdraw()

    def close(self) -> None:
        self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        now = monotonic_ns()
        for call in tuple(self._under_way.values()):
            self._finish(call, Outcome.UNFINISHED, now)
        for connection in self._connections:
            connection.close()
        self._epoll.close()
        os.close(self._wake_fd)

    def statistics(self) -> Mapping[str, int]:
        return {
            "withdrawn": self._ledger.withdrawn,
            "opened": sum(connection.opened for connection in self._connections),
            "peak_in_flight": self._ledger.peak_in_flight,
        }

    # ---- the sender's thread ----

    def _run(self) -> None:
        try:
            self._epoll.register(self._wake_fd, select.EPOLLIN)
            while not self._stopping:
                self._round()
        except BaseException as error:
            self._error = error

    def _round(self) -> None:
        now = monotonic_ns()
        while (arrival := self._ledger.take(now)) is not None:
            call = Call(arrival[0], now, arrival[1])
            self._under_way[id(call)] = call
            self._waiting.append(call)
        self._expire(now)
        for connection in self._connections:
            if connection.state is State.CLOSED and connection.retry_at <= now:
                self._take(connection, connection.connect(now), now)
        self._give()
        self._wait()
        by_fd = {connection.fd: connection for connection in self._connections}
        for fd, _ in self._epoll.poll(0):
            if fd == self._wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            elif fd in by_fd:
                connection = by_fd[fd]
                self._take(connection, connection.progress(), monotonic_ns())

    def _wait(self) -> None:
        """Until an event, or until something is due: epoll itself knows whole milliseconds only, select is finer."""
        moments = [connection.retry_at for connection in self._connections if connection.state is State.CLOSED]
        due = self._ledger.next_due()
        if due is not None:
            moments.append(due - round(self._wire.spin * NANOSECONDS))
        if self._under_way:
            moments.append(next(iter(self._under_way.values())).due + self._timeout)
        wait = (min(moments) - monotonic_ns()) / NANOSECONDS if moments else _LONGEST_WAIT
        select.select([self._epoll], [], [], min(max(wait, 0), _LONGEST_WAIT))

    def _give(self) -> None:
        """Waiting calls to free connections; when none can ever be had, they fail with the reason."""
        for connection in self._connections:
            if not self._waiting:
                return
            if connection.is_free:
                self._take(connection, connection.send(self._waiting.popleft()), monotonic_ns())
        failures = [connection.failure for connection in self._connections]
        if self._waiting and None not in failures:
            now = monotonic_ns()
            for call in self._waiting:
                self._finish(call, failures[0] or Outcome.UNREACHABLE, now)
            self._waiting.clear()

    def _expire(self, now: int) -> None:
        for call in list(self._under_way.values()):
            if call.due + self._timeout > now:
                return
            if call.connection is None:
                self._waiting.remove(call)
            else:
                # There is no way to call an HTTP/1.1 request back but to end its connection.
                call.connection.close()
                call.connection.retry_at = now
            self._finish(call, Outcome.TIMEOUT, now)

    def _take(self, connection: Http1Connection, ended: tuple[Call, int] | None, now: int) -> None:
        if ended is not None:
            self._finish(*ended, now)

    def _finish(self, call: Call, outcome: int, now: int) -> None:
        del self._under_way[id(call)]
        self._ledger.write(call.due, call.taken, call.sent, now, outcome, call.payload)
