"""One connection of the portable HTTP/1.1 sender: connect, TLS, one request at a time, its answer, and failures."""

from __future__ import annotations

import errno
import select
import socket
import ssl
from enum import Enum, auto
from time import monotonic_ns

from extauthz.loadtest.http1_answer import AnswerReader, BadAnswer
from extauthz.loadtest.outcomes import Outcome
from extauthz.loadtest.sender import Address, Payloads, Wire

_RETRY_AFTER = 50_000_000  # ns, between attempts to open a connection that fails
_READ_BYTES = 64 * 1024


class State(Enum):
    """Where a connection is in its life."""

    CLOSED = auto()
    CONNECTING = auto()
    HANDSHAKE = auto()
    OPEN = auto()


class Call:
    """One request under way. `connection` is None while it waits for one."""

    __slots__ = ("connection", "due", "payload", "sent", "taken")

    def __init__(self, due: int, taken: int, payload: int) -> None:
        self.due = due
        self.taken = taken
        self.payload = payload
        self.sent = 0
        self.connection: Http1Connection | None = None


Ended = tuple[Call, int]
"""A call and its outcome."""


class Http1Connection:
    """A connection that is opened again whenever it is lost. Its methods give the call that they ended, if any.

    `failure` is the outcome of calls that cannot be sent because it does not open; None when it is not known to fail.
    """

    def __init__(self, wire: Wire, payloads: Payloads, context: ssl.SSLContext | None, epoll: select.epoll) -> None:
        self._wire = wire
        self._payloads = payloads
        self._context = context
        self._epoll = epoll
        self._socket: socket.socket | None = None
        self._reader = AnswerReader()
        self._left: memoryview = memoryview(b"")
        self._call: Call | None = None
        self._answered = 0
        self._watches_output = False
        self.state = State.CLOSED
        self.retry_at = 0
        self.failure: int | None = None
        self.opened = 0
        self.fd = -1

    @property
    def is_free(self) -> bool:
        """Whether a call can be sent now."""
        return self.state is State.OPEN and self._call is None

    def connect(self, now: int) -> Ended | None:
        """Begin to open it."""
        address = self._wire.address
        family = family_of(address)
        plain = socket.socket(family, socket.SOCK_STREAM)
        plain.setblocking(False)
        if family != socket.AF_UNIX:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain
        self._reader = AnswerReader()
        self._answered = 0
        self.fd = plain.fileno()
        self.state = State.CONNECTING
        self._epoll.register(self.fd, select.EPOLLIN | select.EPOLLOUT)
        self._watches_output = True
        error = plain.connect_ex(address)
        if error in (0, errno.EINPROGRESS):
            return None
        return self._lost(_failure(error))

    def send(self, call: Call) -> Ended | None:
        """Send a request; only when the connection is free."""
        self._call = call
        call.connection = self
        payload = self._payloads[call.payload]
        self._reader.head_only = payload.startswith(b"HEAD ")
        self._left = memoryview(payload)
        return self.progress()

    def progress(self) -> Ended | None:
        """Do what the socket allows now."""
        assert self._socket is not None
        try:
            if self.state is State.CONNECTING:
                error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    return self._lost(_failure(error))
                self._connected()
            if self.state is State.HANDSHAKE:
                self._handshake()
            return self._exchange() if self.state is State.OPEN else None
        except (ssl.SSLWantReadError, BlockingIOError):
            self._watch(output=bool(self._left))
        except ssl.SSLWantWriteError:
            self._watch(output=True)
        except BadAnswer:
            return self._lost(Outcome.PROTOCOL)
        except ssl.SSLError:
            return self._lost(Outcome.RESET if self.state is State.OPEN else Outcome.UNREACHABLE)
        except OSError as error:
            return self._lost(_failure(error.errno) if self.state is State.CONNECTING else Outcome.RESET)
        return None

    def close(self) -> None:
        """End it; the call that it carried is forgotten here."""
        if self._socket is not None:
            self._epoll.unregister(self.fd)
            self._socket.close()
        self._socket = None
        self._call = None
        self.fd = -1
        self.state = State.CLOSED

    def _connected(self) -> None:
        assert self._socket is not None
        self.state = State.OPEN
        if self._context is not None and self._wire.tls is not None:
            self._socket = self._context.wrap_socket(
                self._socket, server_hostname=self._wire.tls.name, do_handshake_on_connect=False
            )
            self.state = State.HANDSHAKE
        else:
            self._opened()

    def _handshake(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        self._socket.do_handshake()
        self.state = State.OPEN
        self._opened()

    def _opened(self) -> None:
        self.opened += 1
        self.failure = None
        self._watch(output=False)

    def _exchange(self) -> Ended | None:
        assert self._socket is not None
        call = self._call
        while self._left:
            try:
                written = self._socket.send(self._left)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._watch(output=True)
                break
            self._left = self._left[written:]
        if call is not None and not call.sent and not self._left:
            call.sent = monotonic_ns()
            self._watch(output=False)
        data = self._socket.recv(_READ_BYTES)
        if not data:
            complete = self._reader.end() and call is not None
            return self._lost(self._reader.status if complete else Outcome.RESET)
        if call is None:
            raise BadAnswer("an answer that nobody asked for")
        if not self._reader.feed(data):
            return self._exchange() if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() else None
        return self._answer(call)

    def _answer(self, call: Call) -> Ended:
        self._answered += 1
        self._call = None
        if not self._reader.keep_alive or self._left:
            self._left = memoryview(b"")
            self.close()
            self.retry_at = 0
        return call, self._reader.status

    def _lost(self, outcome: int) -> Ended | None:
        call, unused = self._call, self._answered == 0
        self._left = memoryview(b"")
        self.close()
        self.failure = outcome if unused and outcome < 0 else None
        self.retry_at = monotonic_ns() + (_RETRY_AFTER if self.failure is not None else 0)
        return None if call is None else (call, outcome)

    def _watch(self, *, output: bool) -> None:
        if output == self._watches_output:
            return
        self._watches_output = output
        self._epoll.modify(self.fd, select.EPOLLIN | (select.EPOLLOUT if output else 0))


def family_of(address: Address) -> socket.AddressFamily:
    """The family of a socket for an address."""
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _failure(error: int | None) -> Outcome:
    return Outcome.REFUSED if error in (errno.ECONNREFUSED, errno.ENOENT) else Outcome.UNREACHABLE
