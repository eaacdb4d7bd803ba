"""What the native transport makes of frames that no gRPC client sends, byte by byte if need be."""

import contextlib
import threading
import time

import h2.errors
import h2.events
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from extauthz.errors import MalformedCheckRequest
from extauthz.server.transport import HEALTH_WATCH_METHOD


def is_alive(client):
    return client.answer(client.call(b"ab"))[1] == b"ba"


def test_a_call_that_comes_byte_by_byte_is_answered(serve, connect):
    client = connect(serve()[1])
    fields, message = client.answer(client.call(b"abc", step=1))
    assert message == b"cba"
    assert (fields[":status"], fields["grpc-status"]) == ("200", "0")


def test_many_calls_in_one_segment_are_answered_each(serve, connect):
    client = connect(serve()[1])
    streams = {}
    for number in range(50):
        message = str(number).encode()
        streams[stream := client.begin()] = message
        client.send(stream, b"\0" + len(message).to_bytes(4, "big") + message, end=True)
    client.flush()
    for stream, message in streams.items():
        assert client.answer(stream)[1] == message[::-1]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"prefix": b"\1\0\0\0\0"}, "12"),
        ({"prefix": b"\2\0\0\0\0"}, "13"),
        ({"prefix": b"\0\0\0\0\7"}, "13"),
        ({"prefix": b"\0\0"}, "13"),
        ({"prefix": b""}, "13"),
        ({"prefix": b"\0\0\0\0\1", "message": b"xy"}, "13"),
        ({":path": "/other.Service/Do"}, "12"),
        ({"te": None}, "13"),
        ({"grpc_timeout": "0n"}, "4"),
        ({"grpc_timeout": "nonsense"}, "13"),
        ({"grpc_timeout": "123456789S"}, "13"),
        ({"message": b"m" * 2000}, "8"),
        ({"x": "y" * 9000}, "8"),
    ],
)
def test_what_cannot_be_answered_ends_with_the_status_that_says_why(serve, connect, changed, status):
    client = connect(serve(message_bytes=1000, header_bytes=8192)[1])
    fields, _ = client.answer(client.call(**changed))
    assert fields["grpc-status"] == status
    assert fields["grpc-message"]
    assert is_alive(client)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"content_type": "text/plain"}, "415"),
        ({"content_type": "application/grpc-web"}, "415"),
        ({"content_type": None}, "415"),
        ({":method": "GET"}, "405"),
    ],
)
def test_what_is_no_grpc_call_gets_an_http_status(serve, connect, changed, status):
    client = connect(serve()[1])
    assert client.answer(client.call(**changed))[0][":status"] == status
    assert is_alive(client)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"x": "y" * 9000}, "headers"),
        ({"grpc_timeout": ""}, "headers"),
        ({"content_type": "text/plain"}, "content_type"),
        ({"te": None}, "te"),
        ({":path": "/other.Service/Do"}, "method"),
        ({":method": "GET"}, "method"),
        ({"message": b"m" * 2000}, "message_size"),
        ({"prefix": b"\1\0\0\0\0"}, "message_form"),
        ({"prefix": b"\0\0\0\0\7"}, "message_form"),
        ({"grpc_timeout": "0n"}, "deadline"),
        ({"te": "gzip"}, "protocol"),
        ({"connection": "close"}, "protocol"),
    ],
)
def test_what_is_refused_is_counted_by_its_reason_and_reaches_no_handler(serve, connect, changed, reason):
    transport, address = serve(message_bytes=1000, header_bytes=8192)
    client = connect(address)
    client.answer(client.call(**changed))
    counts = transport.statistics()
    refused = {name: count for name, count in counts.items() if name.startswith("refused_total:") and count}
    assert refused == {f"refused_total:{reason}": 1}
    assert counts["calls_total"] == 0


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=utf-8"])
def test_variants_of_the_content_type_are_calls(serve, connect, content_type):
    client = connect(serve()[1])
    assert client.answer(client.call(b"ab", content_type=content_type))[1] == b"ba"


def test_a_compressed_message_is_told_what_would_be_understood(serve, connect):
    client = connect(serve()[1])
    fields, _ = client.answer(client.call(prefix=b"\1\0\0\0\0", grpc_encoding="gzip"))
    assert fields["grpc-accept-encoding"] == "identity"


def test_error_texts_are_percent_encoded(serve, connect):
    def refuse(message):
        raise MalformedCheckRequest("50 % of é\n")

    client = connect(serve(refuse)[1])
    fields, _ = client.answer(client.call())
    assert (fields["grpc-status"], fields["grpc-message"]) == ("3", "50 %25 of %C3%A9%0A")


def test_long_error_texts_are_cut(serve, connect):
    def refuse(message):
        raise MalformedCheckRequest("\n" * 100_000)

    client = connect(serve(refuse)[1])
    assert set(client.answer(client.call())[0]["grpc-message"].split("%")) == {"", "0A"}


def test_a_refused_caller_is_told_to_stop_sending_after_its_answer(serve, connect):
    client = connect(serve(message_bytes=1000)[1])
    stream = client.call(b"m" * 5000, end=False)
    assert client.answer(stream)[0]["grpc-status"] == "8"
    client.read_until(lambda: client.received(h2.events.StreamReset))
    assert client.received(h2.events.StreamReset)[0].error_code == 0
    assert is_alive(client)


def test_padding_that_comes_late_changes_nothing(serve, connect):
    client = connect(serve()[1])
    stream = client.begin()
    client.flush()
    frame = DataFrame(stream, b"\0\0\0\0\3abc", flags=["END_STREAM", "PADDED"], pad_length=100).serialize()
    client.socket.sendall(frame[:-50])
    assert is_alive(connect(client.socket.getpeername()))
    client.socket.sendall(frame[-50:])
    assert client.answer(stream)[1] == b"cba"


def test_trailers_of_the_caller_end_its_call(serve, connect):
    client = connect(serve()[1])
    stream = client.call(b"abc", end=False)
    client.h2.send_headers(stream, [("x", "y")], end_stream=True)
    client.flush()
    assert client.answer(stream)[1] == b"cba"


def swallow(connection):
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, b"12345678"),
        SettingsFrame(0, {3: 7}),
        SettingsFrame(0, {}),
        DataFrame(1, b""),
        RstStreamFrame(1, 8),
        ContinuationFrame(1, b""),
    ],
    ids=["PING", "SETTINGS", "empty SETTINGS", "empty DATA", "RST_STREAM", "CONTINUATION"],
)
def test_a_flood_of_frames_ends_its_connection_and_no_other(serve, connect, eventually, frame):
    transport, address = serve()
    steady, flooder = connect(address), connect(address)
    if frame.stream_id:
        opening = [] if isinstance(frame, ContinuationFrame) else ["END_HEADERS"]
        flooder.socket.sendall(HeadersFrame(1, flooder.header_block(), flags=opening).serialize())
    # Without a reader the answers would stop the flood by themselves.
    threading.Thread(target=swallow, args=(flooder.socket,), daemon=True).start()
    # More at once than may come in a moment, so that it is a flood whatever the machine does in between.
    flood = frame.serialize() * 25_000
    deadline = time.monotonic() + 60
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < deadline:
            flooder.socket.sendall(flood)
    assert time.monotonic() < deadline
    assert is_alive(steady)
    eventually(lambda: transport.statistics()["connections"] == 1)


def test_an_envoy_whose_clients_leave_is_not_cut_off(serve, connect):
    client = connect(serve()[1])
    for _ in range(2000):
        client.h2.reset_stream(client.begin(), 8)
    client.flush()
    assert is_alive(client)


def test_a_header_block_that_unpacks_to_megabytes_ends_its_connection(serve, connect):
    transport, address = serve(header_bytes=8192)
    client = connect(address)
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 12000
    client.socket.sendall(HeadersFrame(1, bomb, flags=["END_HEADERS"]).serialize())
    client.read_to_end()
    assert transport.statistics()["refused_total:headers"] == 1
    assert is_alive(connect(address))


def test_connections_beyond_the_limit_are_closed(serve, connect):
    transport, address = serve(connections=3)
    clients = [connect(address) for _ in range(3)]
    assert all(is_alive(client) for client in clients)
    connect(address).read_to_end()
    assert transport.statistics()["refused_total:connection_limit"] == 1
    assert is_alive(clients[0])


def test_streams_beyond_the_limit_are_refused(serve, connect):
    client = connect(serve(streams=4)[1])
    # Before the limit is known more may be begun; what is refused then may be sent again (RFC 9113 section 5.1.2).
    streams = [client.begin() for _ in range(6)]
    client.flush()
    client.read_until(lambda: len(client.received(h2.events.StreamReset)) == 2)
    refused = {event.stream_id: event.error_code for event in client.received(h2.events.StreamReset)}
    assert refused == dict.fromkeys(streams[4:], h2.errors.ErrorCodes.REFUSED_STREAM)


def test_what_waits_together_beyond_the_limit_is_shed_but_health_is_not(serve, connect):
    transport, address = serve(in_flight=4)
    client = connect(address)
    calls = [client.begin() for _ in range(20)]
    health = client.begin(**{":path": HEALTH_WATCH_METHOD})
    for stream in (*calls, health):
        client.send(stream, b"\0\0\0\0\0", end=True)
    client.flush()
    assert [client.answer(stream)[0]["grpc-status"] for stream in calls] == ["0"] * 4 + ["8"] * 16
    assert client.answer(health)[0]["grpc-status"] == "0"
    assert transport.statistics()["refused_total:in_flight"] == 16
    assert is_alive(client)


def test_health_watch_is_a_stream_of_one(serve, connect):
    transport, address = serve()
    client = connect(address)
    path = {":path": HEALTH_WATCH_METHOD}
    assert HealthCheckResponse.FromString(client.answer(client.call(**path))[1]).status == 1
    transport.set_serving(False)
    assert HealthCheckResponse.FromString(client.answer(client.call(**path))[1]).status == 2
