"""HTTP/1.1 as bytes: a client that sends exactly what it is given, and an upstream that keeps exactly what it got.

Ordinary clients and servers will not do: they refuse or mend the odd requests that matter here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

RECEIPT_HEADER = "x-extauthz-receipt"
"""Header of the upstream's answers: the number under which it keeps what it received."""

_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Head:
    """A start line split at its blanks, and the header lines, values trimmed. Wire text."""

    start: tuple[str, str, str]
    headers: tuple[tuple[str, str], ...]

    def lines(self, name: str) -> list[str]:
        """The values of one header, by its lower-case name."""
        return [value for key, value in self.headers if key == name]

    def first(self, name: str) -> str:
        """The first value of one header, empty when there is none."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as the client got it."""

    status: int
    head: Head
    body: str


def parse_head(data: bytes) -> Head:
    """A message head without its final empty line."""
    start, *lines = data.decode("latin-1").split("\r\n")
    first, _, rest = start.partition(" ")
    second, _, third = rest.partition(" ") if first.startswith("HTTP/") else rest.rpartition(" ")
    pairs = (line.partition(":") for line in lines)
    return Head((first, second, third), tuple((name.lower(), value.strip(" \t")) for name, _, value in pairs))


class ConnectionLost(Exception):
    """The peer closed before it had answered."""


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.usable = True
        self._received = b""
        self._answer: asyncio.Future[Response] | None = None
        self._bodyless = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            response = self._parse(closed=True)
            if response is not None:
                self._answer.set_result(response)
            else:
                self._answer.set_exception(ConnectionLost("the connection was closed without an answer"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answer is None or self._answer.done():
            self.usable = False
            return
        response = self._parse(closed=False)
        if response is not None:
            if response.head.first("connection").lower() == "close":
                self.usable = False
            self._answer.set_result(response)

    async def ask(self, request: bytes) -> Response:
        """Send a request and await its answer. Raises ConnectionLost."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionLost("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._bodyless = request.startswith(b"HEAD ")
        self.transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Give the connection up."""
        self.usable = False
        if self.transport is not None:
            self.transport.abort()

    def _parse(self, *, closed: bool) -> Response | None:
        while True:
            end = self._received.find(_END_OF_HEAD)
            if end < 0:
                return None
            head = parse_head(self._received[:end])
            status = int(head.start[1])
            if status >= 200:
                break
            # 100 Continue: the answer proper is still to come.
            self._received = self._received[end + 4 :]
        rest = self._received[end + 4 :]
        body, used = self._body(head, status, rest, closed)
        if body is None:
            return None
        self._received = rest[used:]
        return Response(status, head, body.decode("latin-1"))

    def _body(self, head: Head, status: int, rest: bytes, closed: bool) -> tuple[bytes | None, int]:
        if self._bodyless or status in (204, 304):
            return b"", 0
        length = head.first("content-length")
        if length:
            size = int(length)
            return (rest[:size], size) if len(rest) >= size else (None, 0)
        if "chunked" in head.first("transfer-encoding"):
            end = rest.find(_LAST_CHUNK)
            return (None, 0) if end < 0 else (_unchunk(rest[:end]), end + len(_LAST_CHUNK))
        return (rest, len(rest)) if closed else (None, 0)


def _unchunk(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        body, data = body + rest[:length], rest[length + 2 :]
    return body


class Receipts:
    """What the upstream received, until it is asked for."""

    def __init__(self) -> None:
        self._kept: dict[str, Head] = {}
        self._count = 0

    def keep(self, head: Head) -> str:
        """Keep a request; gives its number."""
        self._count += 1
        number = str(self._count)
        self._kept[number] = head
        return number

    def take(self, response: Response) -> Head | None:
        """What the upstream received before it gave this answer; None when the answer is not the upstream's."""
        number = response.head.first(RECEIPT_HEADER)
        return self._kept.pop(number, None) if number else None


class Upstream(asyncio.Protocol):
    """A server that answers everything with 200 and an empty body, and keeps each request's head."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(_END_OF_HEAD)) >= 0:
            head = parse_head(self._received[:end])
            rest = self._received[end + 4 :]
            used = _request_body(head, rest)
            if used < 0:
                return
            self._received = rest[used:]
            self._answer(head)

    def _answer(self, head: Head) -> None:
        assert self._transport is not None
        number = self._receipts.keep(head)
        self._transport.write(f"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{RECEIPT_HEADER}: {number}\r\n\r\n".encode())


def _request_body(head: Head, rest: bytes) -> int:
    """How many bytes of `rest` are the request's body; -1 while it is not complete."""
    length = head.first("content-length")
    if length:
        return int(length) if len(rest) >= int(length) else -1
    if "chunked" in head.first("transfer-encoding"):
        end = rest.find(_LAST_CHUNK)
        return end + len(_LAST_CHUNK) if end >= 0 else -1
    return 0
