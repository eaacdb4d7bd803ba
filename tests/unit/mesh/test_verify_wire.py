"""The raw client and upstream, and the recording ext_authz server, without Envoy."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from extauthz.mesh.verify.http1 import Client, ConnectionLost, Receipts, Response, Upstream, parse_head
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.recorder import Recorder, Recordings
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse


async def exchange(*answers: bytes, request: bytes = b"GET / HTTP/1.1\r\n\r\n") -> Response:
    """What the client makes of these pieces of an answer, after which the server closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in answers:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        _, client = await asyncio.get_running_loop().create_connection(Client, host, port)
        try:
            return await asyncio.wait_for(client.ask(request), 5)
        finally:
            client.close()


@pytest.mark.parametrize(
    ("answers", "status", "body"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",), 200, "hi"),
        ((b"HTTP/1.1 403 Forb", b"idden\r\ncontent-length: 2\r\n\r\nh", b"i"), 403, "hi"),
        ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",), 200, ""),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", b"0\r\n\r\n"), 200, "hi"),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), 204, ""),
        ((b"HTTP/1.1 200 OK\r\n\r\nuntil ", b"the end"), 200, "until the end"),
    ],
)
def test_every_form_of_answer_is_read(answers: tuple[bytes, ...], status: int, body: str) -> None:
    response = asyncio.run(exchange(*answers))
    assert (response.status, response.body) == (status, body)


def test_an_answer_to_head_has_no_body_whatever_its_length() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n"
    assert asyncio.run(exchange(answer, request=b"HEAD / HTTP/1.1\r\n\r\n")).body == ""


def test_a_connection_that_closes_without_an_answer_is_lost() -> None:
    with pytest.raises(ConnectionLost):
        asyncio.run(exchange())


def test_a_probe_is_sent_to_the_byte() -> None:
    probe = Probe("POST", "/\xff?a b", (("X-A", " \xe9 "), ("x-a", "")), host="H", body="hi")
    assert probe.encode() == (
        b"POST /\xff?a b HTTP/1.1\r\nhost: H\r\nX-A:  \xe9 \r\nx-a: \r\ncontent-length: 2\r\n\r\nhi"
    )
    assert Probe(host=None).encode() == b"GET / HTTP/1.1\r\n\r\n"


def test_the_upstream_keeps_what_it_received_until_it_is_asked() -> None:
    async def run() -> None:
        loop, receipts = asyncio.get_running_loop(), Receipts()
        async with await loop.create_server(lambda: Upstream(receipts), "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()[:2]
            _, client = await loop.create_connection(Client, host, port)
            probe = Probe("POST", "/x y", (("x-a", "1"), ("X-A", "2")), host="h", body="hi")
            first = await client.ask(probe.encode())
            chunked = Probe("PUT", "/c", (("transfer-encoding", "chunked"),), host="h", body="2\r\nhi\r\n0\r\n\r\n")
            second = await client.ask(chunked.encode())
            client.close()
        received = receipts.take(first)
        assert received is not None
        assert received.start == ("POST", "/x y", "HTTP/1.1")
        assert received.lines("x-a") == ["1", "2"]
        assert receipts.take(first) is None
        again = receipts.take(second)
        assert again is not None
        assert again.start[1] == "/c"

    asyncio.run(run())


def test_a_start_line_is_split_at_its_outer_blanks() -> None:
    assert parse_head(b"GET /a b HTTP/1.1\r\nA: 1 ").start == ("GET", "/a b", "HTTP/1.1")
    assert parse_head(b"HTTP/1.1 403 Not Allowed").start == ("HTTP/1.1", "403", "Not Allowed")
    assert parse_head(b"GET / HTTP/1.1\r\nA:\t1 ").headers == (("a", "1"),)


def check_about(port: int, path: str) -> CheckRequest:
    message = CheckRequest()
    address = message.attributes.source.address.socket_address
    address.address, address.port_value = "127.0.0.1", port
    message.attributes.request.http.path = path
    return message


def test_the_recorder_speaks_enough_grpc_for_a_real_client() -> None:
    async def run() -> None:
        loop, recordings = asyncio.get_running_loop(), Recordings()
        async with await loop.create_server(lambda: Recorder(recordings), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                method = channel.unary_unary(
                    "/envoy.service.auth.v3.Authorization/Check",
                    request_serializer=CheckRequest.SerializeToString,
                    response_deserializer=CheckResponse.FromString,
                )
                messages = [check_about(1000 + index, "/" + "x" * (index * 20_000)) for index in range(20)]
                answers = await asyncio.wait_for(asyncio.gather(*map(method, messages)), 20)
        assert all(answer == CheckResponse() for answer in answers)
        for index, message in enumerate(messages):
            assert recordings.take(("127.0.0.1", 1000 + index)) == message.SerializeToString()
        assert recordings.take(("127.0.0.1", 1000)) is None

    asyncio.run(run())
