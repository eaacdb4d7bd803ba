"""An ext_authz server that allows everything and keeps the CheckRequests: the very bytes that Envoy would send us.

It speaks just as much HTTP/2 as that takes: request headers are not decoded, since there is one method only, and every
answer is the same bytes. That makes it several times cheaper than a gRPC library, and it runs on the loop of the rest.
"""

from __future__ import annotations

import asyncio
import struct
from enum import IntEnum

from extauthz.protos.external_auth_pb2 import CheckRequest

Client = tuple[str, int]
"""Address and port of the client that a CheckRequest is about."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_WINDOW = 2**31 - 1
_INITIAL_WINDOW = 65_535
_LARGEST_FRAME = 16_384
_REPLENISH_AT = 2**24
_SETTING_INITIAL_WINDOW_SIZE = 4


class _Frame(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    WINDOW_UPDATE = 8


_ACK = _END_STREAM = 1
_END_HEADERS = 4
_PADDED = 8

# RFC 7541, static table: `:status: 200` is entry 8, `content-type` entry 31; nothing joins the dynamic table.
_RESPONSE_HEADERS = b"\x88\x0f\x10\x10application/grpc"
_RESPONSE_TRAILERS = b"\x00\x0bgrpc-status\x010"
_ALLOW = b""
"""A CheckResponse without any field: status 0, allowed, nothing changed."""


def _frame(kind: _Frame, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Recordings:
    """The last CheckRequest about each client, until it is asked for."""

    def __init__(self) -> None:
        self._kept: dict[Client, bytes] = {}

    def keep(self, message: bytes) -> None:
        """Keep a CheckRequest under the client's address that it names."""
        source = CheckRequest.FromString(message).attributes.source.address.socket_address
        self._kept[source.address, source.port_value] = message

    def take(self, client: Client) -> bytes | None:
        """The CheckRequest about a client's last request; None when Envoy did not ask about it."""
        return self._kept.pop(client, None)


class Recorder(asyncio.Protocol):
    """One connection from Envoy. Every call gets the same `answer`, the bytes of a CheckResponse."""

    def __init__(self, recordings: Recordings, answer: bytes = _ALLOW) -> None:
        self._recordings = recordings
        message = b"\0" + len(answer).to_bytes(4, "big") + answer
        self._answer = [message[at : at + _LARGEST_FRAME] for at in range(0, len(message), _LARGEST_FRAME)]
        self._received = bytearray()
        self._greeted = False
        self._messages: dict[int, bytearray] = {}
        self._unacknowledged = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = struct.pack(">HI", _SETTING_INITIAL_WINDOW_SIZE, _LARGEST_WINDOW)
        self._send(_frame(_Frame.SETTINGS, 0, 0, settings))
        self._widen(_LARGEST_WINDOW - _INITIAL_WINDOW)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._greeted:
            if len(self._received) < len(_PREFACE):
                return
            del self._received[: len(_PREFACE)]
            self._greeted = True
        received, position = self._received, 0
        while len(received) - position >= 9:
            length = int.from_bytes(received[position : position + 3], "big")
            if len(received) - position < 9 + length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", received, position + 3)
            self._on_frame(kind, flags, stream, bytes(received[position + 9 : position + 9 + length]))
            position += 9 + length
        del received[:position]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _Frame.DATA:
            self._on_data(flags, stream, payload)
        elif kind == _Frame.SETTINGS and not flags & _ACK:
            self._send(_frame(_Frame.SETTINGS, _ACK, 0, b""))
        elif kind == _Frame.PING and not flags & _ACK:
            self._send(_frame(_Frame.PING, _ACK, 0, payload))
        elif kind == _Frame.RST_STREAM:
            self._messages.pop(stream, None)

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._unacknowledged += len(payload)
        if self._unacknowledged >= _REPLENISH_AT:
            self._widen(self._unacknowledged)
            self._unacknowledged = 0
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        message = self._messages.setdefault(stream, bytearray())
        message += payload
        if flags & _END_STREAM:
            del self._messages[stream]
            # What precedes a gRPC message: one byte for compression, four for its length.
            self._recordings.keep(bytes(message[5:]))
            self._send(
                _frame(_Frame.HEADERS, _END_HEADERS, stream, _RESPONSE_HEADERS)
                + b"".join(_frame(_Frame.DATA, 0, stream, piece) for piece in self._answer)
                + _frame(_Frame.HEADERS, _END_HEADERS | _END_STREAM, stream, _RESPONSE_TRAILERS)
            )

    def _widen(self, size: int) -> None:
        self._send(_frame(_Frame.WINDOW_UPDATE, 0, 0, struct.pack(">I", size)))

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)
