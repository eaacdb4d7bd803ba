"""HTTP/2 traffic to mutate: what gRPC clients send, and what only an attacker does. `python seeds.py DIRECTORY`.

What Envoy, grpcio and h2load really send is in `recorded/` (see record.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.settings
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PATH = "/envoy.service.auth.v3.Authorization/Check"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "h"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("grpc-timeout", "1S"),
]
RECORDED = Path(__file__).parent / "recorded"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def client() -> h2.connection.H2Connection:
    """A client that lets everything be sent."""
    config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    return connection


def framed(message: bytes) -> bytes:
    """A gRPC message with its prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def calls(*messages: bytes, headers: list[tuple[str, str]] | None = None, pieces: int = 1) -> bytes:
    """One call after another, each message in so many DATA frames."""
    connection = client()
    for number, message in enumerate(messages):
        stream = 2 * number + 1
        connection.send_headers(stream, headers or HEADERS)
        data = framed(message)
        size = max(1, len(data) // pieces)
        for at in range(0, len(data), size):
            connection.send_data(stream, data[at : at + size])
        connection.end_stream(stream)
    return connection.data_to_send()


def raw(*frames: object) -> bytes:
    """Frames behind a preface, whatever they are."""
    return PREFACE + SettingsFrame(0).serialize() + b"".join(frame.serialize() for frame in frames)  # type: ignore[attr-defined]


def block() -> bytes:
    """A header block that opens a call."""
    import hpack

    return hpack.Encoder().encode(HEADERS)


def seeds() -> Iterator[bytes]:
    """Everything, one input each."""
    yield calls(b"")
    yield calls(b"m" * 1000)
    yield calls(*[b"small"] * 20)
    yield calls(b"m" * 4000, pieces=50)
    yield calls(b"m" * 5000)
    for change in (
        [(":path", "/other")],
        [(":method", "GET")],
        [("content-type", "text/plain")],
        [("te", "")],
        [("grpc-timeout", "0n")],
        [("grpc-timeout", "x")],
        [("x", "y" * 9000)],
        [(f"x{number}", "y") for number in range(300)],
    ):
        changed = {**dict(HEADERS), **dict(change)}
        yield calls(b"m", headers=[(name, value) for name, value in changed.items() if value])
    headers = HeadersFrame(1, block(), flags=["END_HEADERS"])
    yield raw(headers, DataFrame(1, b"\x01" + framed(b"x")[1:], flags=["END_STREAM"]))
    yield raw(headers, DataFrame(1, framed(b"x") + b"more", flags=["END_STREAM"]))
    yield raw(headers, DataFrame(1, b"\0\xff\xff\xff\xff", flags=[]), PingFrame(0, b"12345678"))
    yield raw(HeadersFrame(1, block()[:5]), *[ContinuationFrame(1, block()[5:6])] * 200)
    yield raw(*[PingFrame(0, b"12345678")] * 200)
    yield raw(*[SettingsFrame(0, {3: 7})] * 200)
    yield raw(*[PingFrame(0, b"12345678")] * 3000)
    # The answer to the PING of a drain, and an answer that must wait for the window of its stream.
    yield raw(PingFrame(0, b"drain..\0", flags=["ACK"]), headers, DataFrame(1, framed(b"x"), flags=["END_STREAM"]))
    yield raw(
        SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 3}),
        headers,
        DataFrame(1, framed(b"message!"), flags=["END_STREAM"]),
        *[WindowUpdateFrame(1, 2)] * 4,
    )
    yield raw(
        *(
            frame
            for n in range(100)
            for frame in (HeadersFrame(2 * n + 1, block(), flags=["END_HEADERS"]), RstStreamFrame(2 * n + 1, 8))
        )
    )
    yield raw(headers, DataFrame(1, framed(b"x"), flags=["END_STREAM", "PADDED"], pad_length=200))
    yield raw(
        PriorityFrame(1, depends_on=1), WindowUpdateFrame(0, 2**31 - 1), WindowUpdateFrame(0, 2**31 - 1), GoAwayFrame(0)
    )
    yield raw(*[DataFrame(1, b"")] * 100)
    # An HPACK bomb: one large entry in the table, then thousands of references to it.
    yield raw(HeadersFrame(1, b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 12000, flags=["END_HEADERS"]))
    yield b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    yield PREFACE[:10]


def every() -> list[bytes]:
    """What is made here and what was recorded."""
    return [*seeds(), *(file.read_bytes() for file in sorted(RECORDED.iterdir()))]


def write(directory: Path, steering: bytes = b"") -> list[Path]:
    """Write every seed to a file of its own, behind the bytes that steer the fuzzer (fuzz_session.c)."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for number, seed in enumerate(every()):
        file = directory / f"seed-{number:02}"
        file.write_bytes(steering + seed)
        files.append(file)
    return files


if __name__ == "__main__":
    write(Path(sys.argv[1]), steering=b"\x3f\xff")
