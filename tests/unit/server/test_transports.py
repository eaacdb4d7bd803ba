"""What both transports promise: answers, statuses, limits, health, draining."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from extauthz.errors import MalformedCheckRequest, UsageError
from extauthz.server import transports
from extauthz.server.listeners import Address
from extauthz.server.transport import (
    CHECK_METHOD,
    CHECK_SERVICE,
    DEFAULT_LIMITS,
    HEALTH_CHECK_METHOD,
    HEALTH_WATCH_METHOD,
    CallFailed,
    Limits,
    Status,
)

Start = Callable[..., Any]


def health(running: Any, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    answer = running.call(request, method=HEALTH_CHECK_METHOD)
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


def ends_with(running: Any, message: bytes = b"", **more: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as failure:
        running.call(message, **more)
    return failure.value.code(), failure.value.details()


def test_a_call_is_answered_with_what_the_handler_returns(start: Start) -> None:
    running = start(lambda message: message[::-1])
    assert running.call(b"abc") == b"cba"
    assert running.call(b"") == b""
    assert running.call(bytes(range(256)) * 300) == (bytes(range(256)) * 300)[::-1]


def test_methods_are_told_apart_by_their_path(start: Start) -> None:
    running = start({CHECK_METHOD: lambda message: b"check", "/other.Service/Do": lambda message: b"other"})
    assert running.call() == b"check"
    assert running.call(method="/other.Service/Do") == b"other"
    assert ends_with(running, method="/other.Service/Undo")[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_malformed_request_ends_with_invalid_argument_and_its_text(start: Start) -> None:
    def handler(message: bytes) -> bytes:
        if message == b"bad":
            raise MalformedCheckRequest("not a CheckRequest: ünlesbar, 100%")
        return b"fine"

    running = start(handler)
    assert ends_with(running, b"bad") == (grpc.StatusCode.INVALID_ARGUMENT, "not a CheckRequest: ünlesbar, 100%")
    assert running.call() == b"fine"


def test_a_handler_chooses_the_status_its_call_fails_with(start: Start) -> None:
    def handler(message: bytes) -> bytes:
        raise CallFailed(Status.UNAVAILABLE, "not now")

    assert ends_with(start(handler)) == (grpc.StatusCode.UNAVAILABLE, "not now")


def test_any_other_failure_is_internal_and_reveals_nothing(start: Start) -> None:
    def handler(message: bytes) -> bytes:
        if message == b"bad":
            raise KeyError("secret")
        return b"fine"

    running = start(handler)
    code, text = ends_with(running, b"bad")
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in text
    assert "KeyError" not in text
    assert running.call() == b"fine"


def test_handlers_never_run_at_the_same_time(start: Start) -> None:
    inside: list[int] = []
    together: list[int] = []

    def handler(message: bytes) -> bytes:
        inside.append(1)
        together.append(len(inside))
        time.sleep(0.001)
        inside.pop()
        return message

    running = start(handler)
    calls = [running.channel.unary_unary(CHECK_METHOD).future(b"x", timeout=60) for _ in range(50)]
    assert [call.result() for call in calls] == [b"x"] * 50
    assert set(together) == {1}


def test_messages_up_to_the_limit_are_answered_and_larger_ones_refused(start: Start) -> None:
    running = start(lambda message: str(len(message)).encode(), Limits(message_bytes=1 << 20))
    assert running.call(bytes(1 << 20)) == b"1048576"
    assert ends_with(running, bytes((1 << 20) + 1))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert running.call(b"x") == b"1"


def test_headers_up_to_the_limit_are_taken_and_larger_ones_refused(start: Start) -> None:
    running = start(lambda message: message, Limits(header_bytes=8192))
    assert running.call(b"a", metadata=[("x-small", "x" * 4000)]) == b"a"
    assert ends_with(running, metadata=[("x-large", "x" * 9000)])[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ends_with(running, metadata=[(f"x-{n}", "x" * 30) for n in range(300)])[0] is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    assert running.call(b"b") == b"b"


def test_bodies_of_8_mib_fit_without_any_option(start: Start) -> None:
    running = start(lambda message: str(len(message)).encode())
    assert running.call(bytes(8 << 20)) == b"8388608"


def test_health_is_not_serving_until_told_and_follows(start: Start) -> None:
    running = start(lambda message: message, serving=False)
    assert health(running) == health_pb2.HealthCheckResponse.NOT_SERVING
    running.transport.set_serving(True)
    assert health(running) == health_pb2.HealthCheckResponse.SERVING
    assert health(running, CHECK_SERVICE) == health_pb2.HealthCheckResponse.SERVING
    running.transport.set_serving(False)
    assert health(running, CHECK_SERVICE) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_of_an_unknown_service_is_not_found(start: Start) -> None:
    running = start(lambda message: message)
    request = health_pb2.HealthCheckRequest(service="other.Service").SerializeToString()
    assert ends_with(running, request, method=HEALTH_CHECK_METHOD)[0] is grpc.StatusCode.NOT_FOUND


def test_a_health_watch_begins_with_the_status_now(start: Start) -> None:
    running = start(lambda message: message)
    watch = running.channel.unary_stream(HEALTH_WATCH_METHOD)(b"", timeout=60)
    assert health_pb2.HealthCheckResponse.FromString(next(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_unix_sockets_are_served_with_their_mode_and_removed(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    running = start(lambda message: message, listen=path)
    assert running.call(b"x") == b"x"
    assert os.stat(path).st_mode & 0o777 == 0o660
    running.transport.stop()
    assert not os.path.exists(path)


def test_the_unix_socket_of_a_live_server_is_not_taken_over(start: Start, tmp_path: Path, transport_name: str) -> None:
    path = str(tmp_path / "s")
    running = start(lambda message: message, listen=path)
    other, _ = transports.make(transport_name, [Address(path=path)], {}, DEFAULT_LIMITS)
    with pytest.raises(UsageError, match="in use by a running server"):
        other.bind()
    assert running.call(b"x") == b"x"


def test_when_one_address_cannot_be_had_none_is_listened_on(transport_name: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = tmp_path / "s"
        addresses = [Address(path=str(free)), Address(host="127.0.0.1", port=taken.getsockname()[1])]
        transport, _ = transports.make(transport_name, addresses, {}, DEFAULT_LIMITS)
        with pytest.raises(UsageError, match="in use by another process"):
            transport.bind()
    assert not free.exists()


def test_ipv6_and_several_addresses_are_served(transport_name: str, tmp_path: Path) -> None:
    addresses = [Address(host="localhost"), Address(path=str(tmp_path / "s"))]
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        addresses.insert(0, Address(host="::1"))  # where this machine has it
    transport, _ = transports.make(transport_name, addresses, {CHECK_METHOD: lambda message: message}, DEFAULT_LIMITS)
    bound = transport.bind()
    transport.start()
    try:
        for address in bound:
            with grpc.insecure_channel(str(address)) as channel:
                assert channel.unary_unary(CHECK_METHOD)(b"x", timeout=60, wait_for_ready=True) == b"x"
    finally:
        transport.stop()


def test_workers_share_a_port(transport_name: str) -> None:
    handlers = {CHECK_METHOD: lambda message: message}
    first, _ = transports.make(transport_name, [Address(host="127.0.0.1")], handlers, DEFAULT_LIMITS, share=True)
    address = first.bind()[0]
    second, _ = transports.make(transport_name, [address], handlers, DEFAULT_LIMITS, share=True)
    try:
        assert second.bind() == [address]
    finally:
        first.stop()
        second.stop()


def test_keepalive_pings_at_any_rate_are_accepted(start: Start) -> None:
    running = start(lambda message: message)
    channel = running.open_channel(
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 60_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_sent_ping_interval_without_data_ms", 100),
    )
    states: list[grpc.ChannelConnectivity] = []
    call = channel.unary_unary(CHECK_METHOD)
    assert call(b"x", timeout=60, wait_for_ready=True) == b"x"
    channel.subscribe(states.append)
    time.sleep(2.0)
    assert call(b"x", timeout=60) == b"x"
    deadline = time.monotonic() + 30
    while not states:
        assert time.monotonic() < deadline, "no state was told"
        time.sleep(0.01)
    assert set(states) == {grpc.ChannelConnectivity.READY}


def test_draining_answers_calls_in_flight_and_then_refuses(start: Start, loopback: str) -> None:
    entered, release = threading.Event(), threading.Event()

    def handler(message: bytes) -> bytes:
        entered.set()
        release.wait(60)
        return message

    running = start(handler, host=loopback)
    call = running.channel.unary_unary(CHECK_METHOD).future(b"x", timeout=60)
    assert entered.wait(30)
    drained: list[bool] = []
    draining = threading.Thread(target=lambda: drained.append(running.transport.drain(60.0)))
    draining.start()
    time.sleep(0.1)
    release.set()
    assert call.result() == b"x"
    draining.join(60)
    assert drained == [True]
    with pytest.raises(OSError, match="refused"), socket.socket() as probe:
        probe.connect((running.addresses[0].host, running.addresses[0].port))


def test_draining_an_idle_server_does_not_take_long(start: Start) -> None:
    running = start(lambda message: message)
    running.call(b"x")
    watch = running.channel.unary_stream(HEALTH_WATCH_METHOD)(b"", timeout=100)
    next(watch)
    began = time.monotonic()
    assert running.transport.drain(100.0)
    assert time.monotonic() - began < 50.0


def test_stopping_may_be_done_twice_and_without_starting(transport_name: str) -> None:
    transport, _ = transports.make(transport_name, [Address(host="127.0.0.1")], {}, DEFAULT_LIMITS)
    transport.stop()
    transport.stop()


def test_old_connections_are_closed_gracefully(start: Start) -> None:
    running = start(lambda message: message, Limits(connection_age_seconds=0.3))
    began = time.monotonic()
    calls = 0
    while time.monotonic() < began + 3 or calls <= 200:
        assert time.monotonic() < began + 90
        assert running.call(b"x") == b"x"
        calls += 1
        time.sleep(0.002)


def test_statistics_are_plain_integers(start: Start) -> None:
    running = start(lambda message: message)
    for _ in range(3):
        running.call(b"x")
    deadline = time.monotonic() + 30
    while (statistics := running.transport.statistics())["in_flight"]:
        assert time.monotonic() < deadline  # a client may have its answer before the call has ended
    assert statistics["calls_total"] >= 3
    assert all(type(value) is int for value in statistics.values())
