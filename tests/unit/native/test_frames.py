"""What the native transport makes of frames that no gRPC client sends, byte by byte if need be."""

import contextlib
import socket
import threading
import time

import h2.config
import h2.connection
import h2.events
import pytest

from extauthz.server import native
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, HEALTH_WATCH_METHOD, Limits

HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": CHECK_METHOD,
    ":authority": "h",
    "te": "trailers",
    "content-type": "application/grpc",
}


@pytest.fixture
def serve():
    if not native.available()[0]:
        pytest.skip(f"the native transport is not available: {native.available()[1]}")
    running = []

    def start(handler=lambda message: message[::-1], **limits):
        transport = native.NativeTransport([Address(host="127.0.0.1")], {CHECK_METHOD: handler}, Limits(**limits))
        (address,) = transport.bind()
        transport.set_serving(True)
        transport.start()
        running.append(transport)
        return transport, (address.host, address.port)

    yield start
    for transport in running:
        transport.stop()


class Client:
    """An HTTP/2 client that sends what it is told to."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, 10)
        config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.answers = {}
        self.events = []
        self.flush()

    def flush(self, step=0):
        data = self.h2.data_to_send()
        for at in range(0, len(data), step or len(data) or 1):
            self.socket.sendall(data[at : at + step] if step else data)

    def call(self, message=b"", *, stream=None, prefix=None, step=0, end=True, **changed):
        stream = stream or self.h2.get_next_available_stream_id()
        headers = {**HEADERS, **{name.replace("_", "-"): value for name, value in changed.items()}}
        self.h2.send_headers(stream, [(name, value) for name, value in headers.items() if value is not None])
        data = (b"\0" + len(message).to_bytes(4, "big") if prefix is None else prefix) + message
        self.h2.send_data(stream, data, end_stream=end)
        self.flush(step)
        return stream

    def answer(self, stream, seconds=10.0):
        """Status, headers and trailers together, and the message, once the stream has ended."""
        deadline = time.monotonic() + seconds
        while not self.answers.get(stream, {}).get("ended"):
            assert time.monotonic() < deadline
            if not self.read():
                break
        found = self.answers.get(stream, {})
        return found.get("fields", {}), found.get("data", b"")[5:]

    def read(self):
        data = self.socket.recv(65536)
        for event in self.h2.receive_data(data) if data else ():
            self.events.append(event)
            found = self.answers.setdefault(getattr(event, "stream_id", 0), {"fields": {}, "data": b""})
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                found["fields"].update({name.decode(): value.decode() for name, value in event.headers})
            elif isinstance(event, h2.events.DataReceived):
                found["data"] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                found["ended"] = True
        self.flush()
        return data

    def closed(self):
        with contextlib.suppress(OSError):
            while self.read():
                pass
        return True


def test_a_call_that_comes_byte_by_byte_is_answered(serve):
    client = Client(serve()[1])
    fields, message = client.answer(client.call(b"abc", step=1))
    assert message == b"cba"
    assert (fields[":status"], fields["grpc-status"]) == ("200", "0")


def test_many_calls_in_one_segment_are_answered_each(serve):
    client = Client(serve()[1])
    streams = {}
    for number in range(50):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, list(HEADERS.items()))
        body = str(number).encode()
        client.h2.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        streams[stream] = body
    client.flush()
    for stream, body in streams.items():
        assert client.answer(stream)[1] == body[::-1]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"prefix": b"\1\0\0\0\0"}, "12"),
        ({"prefix": b"\2\0\0\0\0"}, "13"),
        ({"prefix": b"\0\0\0\0\7"}, "13"),
        ({"prefix": b"\0\0"}, "13"),
        ({"prefix": b"\0\0\0\0\1", "message": b"xy"}, "13"),
        ({":path": "/other.Service/Do"}, "12"),
        ({"te": None}, "13"),
        ({"grpc_timeout": "0n"}, "4"),
        ({"grpc_timeout": "nonsense"}, "13"),
        ({"message": b"m" * 2000}, "8"),
        ({"x": "y" * 9000}, "8"),
    ],
)
def test_what_cannot_be_answered_ends_with_the_status_that_says_why(serve, changed, status):
    client = Client(serve(message_bytes=1000, header_bytes=8192)[1])
    fields, _ = client.answer(client.call(**changed))
    assert fields["grpc-status"] == status
    assert fields["grpc-message"]
    assert client.answer(client.call(b"ab"))[1] == b"ba"


@pytest.mark.parametrize(("changed", "status"), [({"content_type": "text/plain"}, "415"), ({":method": "GET"}, "405")])
def test_what_is_no_grpc_call_gets_an_http_status(serve, changed, status):
    client = Client(serve()[1])
    assert client.answer(client.call(**changed))[0][":status"] == status


def test_error_texts_are_percent_encoded(serve):
    from extauthz.errors import MalformedCheckRequest

    def refuse(message):
        raise MalformedCheckRequest("50 % of é\n")

    client = Client(serve(refuse)[1])
    fields, _ = client.answer(client.call())
    assert (fields["grpc-status"], fields["grpc-message"]) == ("3", "50 %25 of %C3%A9%0A")


def swallow(connection):
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


def test_a_flood_of_pings_ends_its_connection_and_no_other(serve):
    transport, address = serve()
    steady, flooder = Client(address), Client(address)
    ping = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
    # Without a reader the answers would stop the flood by themselves.
    threading.Thread(target=swallow, args=(flooder.socket,), daemon=True).start()
    with contextlib.suppress(OSError):
        for _ in range(60):
            flooder.socket.sendall(ping * 1000)
    assert steady.answer(steady.call(b"ab"))[1] == b"ba"
    deadline = time.monotonic() + 10
    while not transport.statistics()["refused_total:flood"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_envoy_whose_clients_leave_is_not_cut_off(serve):
    client = Client(serve()[1])
    for _ in range(2000):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, list(HEADERS.items()))
        client.h2.reset_stream(stream, 8)
    client.flush()
    assert client.answer(client.call(b"ab"))[1] == b"ba"


def test_a_connection_without_a_preface_is_closed_in_time(serve):
    _, address = serve(preface_seconds=0.2)
    with socket.create_connection(address, 10) as silent:
        deadline = time.monotonic() + 5
        while silent.recv(65536):
            assert time.monotonic() < deadline
    with socket.create_connection(address, 10) as wrong:
        wrong.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while wrong.recv(65536):
            pass


def test_connections_beyond_the_limit_are_closed(serve):
    transport, address = serve(connections=3)
    clients = [Client(address) for _ in range(3)]
    assert clients[0].answer(clients[0].call(b"ab"))[1] == b"ba"
    with socket.create_connection(address, 10) as extra:
        extra.settimeout(5)
        assert extra.recv(1) == b""
    assert transport.statistics()["refused_total:connection_limit"] >= 1


def test_an_unfinished_message_holds_at_most_the_limit(serve):
    transport, address = serve(message_bytes=1 << 20)
    client = Client(address)
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, list(HEADERS.items()))
    client.h2.send_data(stream, b"\0\x7f\xff\xff\xff")
    client.flush()
    assert client.answer(stream)[0]["grpc-status"] == "8"
    assert transport.statistics()["in_flight"] == 0


def test_health_watch_is_a_stream_of_one(serve):
    from grpc_health.v1.health_pb2 import HealthCheckResponse

    transport, address = serve()
    client = Client(address)
    path = {":path": HEALTH_WATCH_METHOD}
    assert HealthCheckResponse.FromString(client.answer(client.call(**path))[1]).status == 1
    transport.set_serving(False)
    assert HealthCheckResponse.FromString(client.answer(client.call(**path))[1]).status == 2


def test_a_drain_answers_what_is_in_flight_and_ends_in_two_steps(serve):
    transport, address = serve()
    client = Client(address)
    assert client.answer(client.call(b"ab"))[1] == b"ba"
    drained = threading.Thread(target=transport.drain, args=(5.0,))
    drained.start()
    while not any(isinstance(event, h2.events.ConnectionTerminated) for event in client.events):
        client.read()
    first = next(event for event in client.events if isinstance(event, h2.events.ConnectionTerminated))
    assert first.last_stream_id == 2**31 - 1
    assert client.closed()
    drained.join(5)
    assert not drained.is_alive()
