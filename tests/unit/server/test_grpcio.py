"""What only the grpcio transport does: health beside a full thread pool, shedding, reflection, watches that follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from extauthz.server.grpcio import THREADS, GrpcioTransport
from extauthz.server.listeners import Address
from extauthz.server.transport import (
    CHECK_METHOD,
    CHECK_SERVICE,
    HEALTH_CHECK_METHOD,
    HEALTH_WATCH_METHOD,
    Handler,
    Limits,
)


class Server:
    """A grpcio transport whose handler waits until it is let go."""

    def __init__(self, limits: Limits) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        handler: Handler = self._handle
        self.transport = GrpcioTransport([Address(host="127.0.0.1")], {CHECK_METHOD: handler}, limits)
        self.target = str(self.transport.bind()[0])
        self.transport.start()
        self.transport.set_serving(True)
        self.channel = grpc.insecure_channel(self.target, options=(("grpc.use_local_subchannel_pool", 1),))

    def begin(self, count: int) -> list[grpc.Future]:
        method = self.channel.unary_unary(CHECK_METHOD)
        return [method.future(b"x", timeout=60, wait_for_ready=True) for _ in range(count)]

    def health(self) -> int:
        answer = self.channel.unary_unary(HEALTH_CHECK_METHOD)(b"", timeout=30, wait_for_ready=True)
        return int(health_pb2.HealthCheckResponse.FromString(answer).status)

    def close(self) -> None:
        self.release.set()
        self.channel.close()
        self.transport.stop()

    def _handle(self, message: bytes) -> bytes:
        self.entered.release()
        self.release.wait(100)
        return message


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that takes 40 calls at once."""
    running = Server(Limits(in_flight=40))
    yield running
    running.close()


def wait_for(server: Server, in_flight: int) -> None:
    deadline = time.monotonic() + 30
    while server.transport.statistics()["in_flight"] != in_flight:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_health_answers_while_every_thread_is_taken(server: Server) -> None:
    calls = server.begin(THREADS + 4)
    wait_for(server, THREADS + 4)
    assert server.health() == health_pb2.HealthCheckResponse.SERVING
    server.release.set()
    assert [call.result() for call in calls] == [b"x"] * (THREADS + 4)


def test_calls_beyond_the_limit_are_shed_at_once_and_counted(server: Server) -> None:
    kept = server.begin(40)
    wait_for(server, 40)
    for call in server.begin(10):
        assert call.exception(timeout=30).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.health() == health_pb2.HealthCheckResponse.SERVING
    statistics = server.transport.statistics()
    assert statistics["refused_total:in_flight"] == 10
    assert statistics["in_flight"] == 40
    server.release.set()
    assert [call.result() for call in kept] == [b"x"] * 40
    wait_for(server, 0)
    assert server.begin(1)[0].result() == b"x"


def test_calls_that_their_client_gave_up_are_not_in_flight_for_ever(server: Server) -> None:
    calls = server.begin(THREADS + 8)
    wait_for(server, THREADS + 8)
    for call in calls:
        call.cancel()
    server.release.set()
    wait_for(server, 0)


def test_a_health_watch_is_told_of_changes(server: Server) -> None:
    watch = server.channel.unary_stream(HEALTH_WATCH_METHOD)(b"", timeout=60)
    statuses = (health_pb2.HealthCheckResponse.FromString(answer).status for answer in watch)
    assert next(statuses) == health_pb2.HealthCheckResponse.SERVING
    server.transport.set_serving(False)
    assert next(statuses) == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


def test_reflection_knows_the_services(server: Server) -> None:
    database = ProtoReflectionDescriptorDatabase(server.channel)
    assert {CHECK_SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    file = database.FindFileContainingSymbol(CHECK_SERVICE)
    assert "CheckRequest" in {message.name for message in file.message_type}


def test_draining_gives_up_when_its_time_is_over(server: Server) -> None:
    call = server.begin(1)[0]
    wait_for(server, 1)
    began = time.monotonic()
    assert not server.transport.drain(0.3)
    assert 0.2 < time.monotonic() - began < 50
    assert call.exception(timeout=30).code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
