"""Servers that answer with mutated bytes: every call still becomes one record, and the engine goes on."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest

from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.packing import http1_request, http2_request

H1_ANSWERS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\nno",
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The bytes with a few changes: flipped, cut out, doubled, cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(changed) or 1)
        kind = rng.randrange(4)
        if kind == 0 and changed:
            changed[at] = rng.randrange(256)
        elif kind == 1:
            del changed[at : at + rng.randint(1, 8)]
        elif kind == 2:
            changed[at:at] = changed[at : at + rng.randint(1, 30)]
        else:
            del changed[rng.randint(at, len(changed)) :]
    return bytes(changed)


def answering(answers: Callable[[random.Random], bytes], seed: int) -> Callable[[socket.socket], None]:
    """A server whose connections each say something else, in pieces, and may end at any time."""
    rng = random.Random(seed)

    def behave(peer: socket.socket) -> None:
        mine = random.Random(rng.random())
        while peer.recv(65536):
            answer = mutated(mine, answers(mine))
            cut = mine.randint(0, len(answer))
            peer.sendall(answer[:cut])
            peer.sendall(answer[cut:])
            if mine.random() < 0.2:
                return

    return behave


@pytest.mark.parametrize("name", ["native", "epoll"])
@pytest.mark.parametrize("seed", range(3))
def test_mutated_http1_answers(lab, name, seed):
    server = lab.serve_raw(answering(lambda rng: rng.choice(H1_ANSWERS), seed))
    payload = http1_request("GET", "/", "shop", [], b"")
    records = lab.drive(name, lab.http_wire(server.address, timeout=0.2), [payload], count=300, rate=2000)
    assert len(records) == 300


@pytest.mark.parametrize("protocol", [Protocol.CHECK, Protocol.H2C])
@pytest.mark.parametrize("seed", range(3))
def test_mutated_http2_answers(lab, protocol, seed):
    headers, trailers = b"\x88\x0f\x10\x10application/grpc", b"\x00\x0bgrpc-status\x010"

    def answer(rng: random.Random) -> bytes:
        frames = [lab.frame(4, 0, 0, b"\x00\x03\x00\x00\x00\x64"), lab.frame(4, 1, 0)]
        for stream in rng.sample(range(1, 60, 2), k=rng.randint(1, 6)):
            frames.append(lab.frame(1, 4, stream, headers))
            frames.append(lab.frame(0, 0, stream, bytes(4) + b"\x06\x0a\x04\x08\x07\x12\x00"))
            frames.append(lab.frame(1, 5, stream, trailers))
        frames.append(
            rng.choice((b"", lab.frame(7, 0, 0, bytes(3) + b"\x05" + bytes(4)), lab.frame(6, 0, 0, bytes(8))))
        )
        return b"".join(frames)

    server = lab.serve_raw(answering(answer, seed))
    if protocol is Protocol.CHECK:
        wire, payload = lab.check_wire(server.address, timeout=0.2), lab.check_message
    else:
        wire = lab.http_wire(server.address, Protocol.H2C, timeout=0.2)
        payload = http2_request("GET", "/", "shop", [], b"")
    records = lab.drive("native", wire, [payload], count=300, rate=2000)
    assert len(records) == 300
