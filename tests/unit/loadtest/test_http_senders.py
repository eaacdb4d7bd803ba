"""Both senders of HTTP/1.1 requests, and h2c: where answers end, connections that stay and go, failures apart."""

from __future__ import annotations

import socket
import ssl
import threading

import h2.config
import h2.connection
import h2.events
import numpy as np
import pytest

from extauthz.loadtest import sender_native
from extauthz.loadtest.outcomes import Outcome, Protocol
from extauthz.loadtest.packing import http1_request, http2_request
from extauthz.loadtest.sender import Tls

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = http1_request("GET", "/", "shop", [("x", "y")], b"")
POST = http1_request("POST", "/", "shop", [], b"some body")


@pytest.fixture(params=["native", "epoll"])
def name(request: pytest.FixtureRequest) -> str:
    """Each sender in turn."""
    if request.param == "native" and not sender_native.available()[0]:
        pytest.skip("the native sender is not available")
    return str(request.param)


def test_each_request_becomes_one_record_with_its_times_in_order(lab, name):
    server = lab.serve_http(OK)
    records = lab.drive(name, lab.http_wire(server.address), [GET], count=200, rate=1000)
    assert len(records) == 200
    assert set(records["outcome"]) == {200}
    for earlier, later in (("due", "taken"), ("taken", "sent"), ("sent", "done")):
        assert np.all(records[earlier] <= records[later])
    lab.eventually(lambda: server.connections == 2)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nContent-Length:0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\ntrailer: x\r\nanother: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + bytes(100000),
        b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_answers_of_every_form_end_where_they_should_and_the_connection_stays(lab, name, answer):
    server = lab.serve_http(answer)
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [GET], count=6, rate=200)
    assert set(records["outcome"]) <= {200, 204, 304}
    assert server.connections == 1


def test_answers_are_understood_byte_by_byte(lab, name):
    answer = b"HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    def behave(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while peer.recv(65536):
            for byte in answer:
                peer.sendall(bytes([byte]))

    server = lab.serve_raw(behave)
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [GET], count=4, rate=100)
    assert list(records["outcome"]) == [403] * 4


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
)
def test_a_connection_that_is_not_kept_is_opened_again(lab, name, answer):
    server = lab.serve_http(answer)
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [GET], count=4, rate=100)
    assert list(records["outcome"]) == [200] * 4
    assert server.connections >= 4


def test_a_body_without_a_length_ends_with_the_connection(lab, name):
    def behave(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    server = lab.serve_raw(behave)
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [GET], count=4, rate=100)
    assert list(records["outcome"]) == [200] * 4


def test_a_head_answer_has_no_body_whatever_it_says(lab, name):
    server = lab.serve_http(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")
    head = http1_request("HEAD", "/", "shop", [], b"")
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [head], count=3)
    assert list(records["outcome"]) == [200] * 3


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000,
    ],
)
def test_nonsense_is_a_protocol_error(lab, name, answer):
    server = lab.serve_http(answer)
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [GET], count=2, rate=20)
    assert set(records["outcome"]) == {Outcome.PROTOCOL}


def test_refused_reset_and_timeout_are_told_apart(lab, name, closed_port):
    refused = lab.drive(name, lab.http_wire(("127.0.0.1", closed_port)), [GET], count=5)
    assert set(refused["outcome"]) == {Outcome.REFUSED}
    reset = lab.drive(name, lab.http_wire(lab.serve_http(OK, b"").address), [GET], count=20)
    assert set(reset["outcome"]) == {200, Outcome.RESET}
    released = threading.Event()
    silent = lab.serve_raw(lambda peer: released.wait(60))
    timeout = lab.drive(name, lab.http_wire(silent.address, timeout=0.2), [GET], count=5)
    released.set()
    assert set(timeout["outcome"]) == {Outcome.TIMEOUT}
    assert np.all(timeout["done"] - timeout["due"] >= 190_000_000)


def test_requests_wait_for_a_free_connection_and_the_wait_counts(lab, name):
    def behave(peer: socket.socket) -> None:
        while peer.recv(65536):
            threading.Event().wait(0.05)
            peer.sendall(OK)

    server = lab.serve_raw(behave)
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [GET], count=5, rate=1e6)
    latency = (records["done"] - records["due"]) / 1e6
    assert np.all(latency >= 49 * np.arange(1, 6))
    # The wait is no part of the time of service: that begins when the connection is free.
    assert np.all(records["sent"][1:] >= records["done"][:-1])


def test_bodies_are_sent_and_read_by_the_peer(lab, name):
    seen = []

    def behave(peer: socket.socket) -> None:
        received = b""
        while data := peer.recv(65536):
            received += data
            if received.endswith(b"end"):
                seen.append(received)
                received = b""
                peer.sendall(OK)

    server = lab.serve_raw(behave)
    large = http1_request("POST", "/", "shop", [], bytes(3_000_000) + b"end")
    records = lab.drive(name, lab.http_wire(server.address, connections=1), [large], count=2)
    assert list(records["outcome"]) == [200] * 2
    assert seen == [large] * 2


def test_epoll_speaks_tls(lab, certificate):
    public, private = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)

    def behave(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as peer:
            while peer.recv(65536):
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n" + bytes(50000))

    server = lab.serve_raw(behave)
    for tls, outcome in (
        (Tls("localhost", authority=public), 200),
        (Tls("elsewhere", authority=public), Outcome.UNREACHABLE),
        (Tls("localhost"), Outcome.UNREACHABLE),
        (Tls("localhost", verify=False), 200),
    ):
        records = lab.drive("epoll", lab.http_wire(server.address, tls=tls), [GET], count=5)
        assert set(records["outcome"]) == {outcome}


def _serve_h2(status: bytes, seen: list) -> object:
    def behave(peer: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        peer.sendall(connection.data_to_send())
        while data := peer.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append([tuple(map(bytes, pair)) for pair in event.headers])
                elif isinstance(event, h2.events.DataReceived):
                    seen.append(event.data)
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(b":status", status)])
                    connection.send_data(event.stream_id, bytes(10_000), end_stream=True)
            peer.sendall(connection.data_to_send())

    return behave


def test_h2c_requests_arrive_as_they_were_built(lab):
    seen: list = []
    server = lab.serve_raw(_serve_h2(b"403", seen))
    headers = [("X-Up", "a"), ("x-up", "b"), ("connection", "close"), ("host", "no")]
    payloads = [http2_request("GET", "/a?b", "shop", headers, b""), http2_request("POST", "/c", "shop", [], b"body")]
    wire = lab.http_wire(server.address, Protocol.H2C, connections=1)
    records = lab.drive("native", wire, payloads, count=2, rate=20)
    assert list(records["outcome"]) == [403, 403]
    pseudo = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a?b"), (b":authority", b"shop")]
    assert seen[0] == [*pseudo, (b"x-up", b"a"), (b"x-up", b"b")]
    assert seen[2] == b"body"
