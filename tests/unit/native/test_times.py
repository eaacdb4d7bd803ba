"""When the native transport ends calls and connections by itself, and how it goes down."""

import contextlib
import socket
import threading
import time

import h2.events
import h2.settings
import pytest

from extauthz.server import native

CODES = h2.settings.SettingCodes


def is_alive(client):
    return client.answer(client.call(b"ab"))[1] == b"ba"


def goaways(client):
    return [event.last_stream_id for event in client.received(h2.events.ConnectionTerminated)]


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_a_connection_without_a_preface_is_closed_in_time(serve, sent):
    transport, address = serve(preface_seconds=0.5)
    # What is sent too late resets the connection.
    with socket.create_connection(address, 60) as silent, contextlib.suppress(ConnectionError):
        silent.sendall(sent)
        while silent.recv(65536):
            pass
    assert transport.statistics()["refused_total:preface"] == 1


def test_what_is_no_http2_is_closed_at_once(serve):
    _, address = serve()
    with socket.create_connection(address, 60) as wrong:
        wrong.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises(ConnectionError, match="reset"):  # noqa: PT012
            while wrong.recv(65536):
                pass
            raise ConnectionResetError("or reset, when everything was read")


def test_an_idle_connection_is_closed_gracefully(serve, connect):
    _, address = serve(idle_seconds=1.5)
    client = connect(address)
    assert is_alive(client)
    client.read_to_end()
    assert goaways(client) == [2**31 - 1, 1]


def test_pings_keep_an_idle_connection_open(serve, connect):
    _, address = serve(idle_seconds=2.5)
    client = connect(address)
    began = time.monotonic()
    while time.monotonic() - began < 3.5:
        client.h2.ping(b"12345678")
        client.flush()
        time.sleep(0.1)
    assert is_alive(client)
    assert goaways(client) == []


def test_an_old_connection_answers_what_it_was_sent_and_is_closed(serve, connect):
    _, address = serve(connection_age_seconds=1.5)
    client = connect(address)
    assert is_alive(client)
    client.read_until(lambda: goaways(client))
    # Sent before the client has seen that the connection ends, and answered.
    stream = client.h2.get_next_available_stream_id()
    assert goaways(client)[0] == 2**31 - 1
    assert stream == 3
    client.read_to_end()
    assert goaways(client) == [2**31 - 1, 1]


def test_a_message_that_does_not_come_ends_its_call(serve, connect, monkeypatch):
    monkeypatch.setattr(native, "CALL_SECONDS", 0.3)
    transport, address = serve()
    client = connect(address)
    began = time.monotonic()
    stream = client.call(b"half", prefix=b"\0\0\0\1\0", end=False)
    assert client.answer(stream)[0]["grpc-status"] == "4"
    assert 0.25 < time.monotonic() - began < 30
    assert is_alive(client)
    assert transport.statistics()["in_flight"] == 0


def test_an_answer_that_is_not_taken_is_given_up(serve, connect, monkeypatch, eventually):
    monkeypatch.setattr(native, "CALL_SECONDS", 0.3)
    transport, address = serve(lambda message: bytes(100_000))
    client = connect(address, settings={CODES.INITIAL_WINDOW_SIZE: 10})
    client.call()
    eventually(lambda: transport.statistics()["refused_total:stalled"] == 1)
    eventually(lambda: transport.statistics()["in_flight"] == 0)


def test_a_connection_that_takes_nothing_is_closed(serve, connect, monkeypatch, eventually):
    monkeypatch.setattr(native, "CALL_SECONDS", 0.5)
    transport, address = serve(lambda message: bytes(8 << 20))
    window = {CODES.INITIAL_WINDOW_SIZE: 2**31 - 1}
    client = connect(address, settings=window, receive_buffer=4096)
    client.h2.increment_flow_control_window(2**31 - 1 - 65535)
    for _ in range(4):
        client.call()
    eventually(lambda: transport.statistics()["refused_total:stalled"] == 1)
    eventually(lambda: transport.statistics()["connections"] == 0)


def drain(transport, seconds):
    done = []
    thread = threading.Thread(target=lambda: done.append(transport.drain(seconds)))
    thread.start()
    return thread, done


def test_a_drain_ends_in_two_steps_and_waits_for_the_peer(serve, connect):
    transport, address = serve()
    client = connect(address)
    assert is_alive(client)
    thread, done = drain(transport, 60.0)
    client.read_to_end()
    assert goaways(client) == [2**31 - 1, 1]
    client.socket.close()
    thread.join(60)
    assert done == [True]


def test_a_call_sent_before_the_goaway_was_seen_is_answered(serve, connect):
    entered, release = threading.Event(), threading.Event()

    def slow(message):
        if message == b"slow":
            entered.set()
            release.wait(60)
        return message[::-1]

    transport, address = serve(slow)
    client, busy = connect(address), connect(address)
    assert is_alive(client)
    assert is_alive(busy)
    held = busy.call(b"slow")
    assert entered.wait(60)
    # Told while the server is busy, so that it says GOAWAY before it reads what is sent now.
    transport._server.drain(0.0, 60.0)
    stream = client.call(b"abc")
    release.set()
    # The client has not read the GOAWAY, and so not answered the PING that asks whether it has.
    assert client.answer(stream)[1] == b"cba"
    assert goaways(client)[0] == 2**31 - 1
    assert busy.answer(held)[1] == b"wols"
    thread, done = drain(transport, 60.0)
    for each in (client, busy):
        each.read_to_end()
        each.socket.close()
    thread.join(60)
    assert done == [True]


def test_a_connection_that_waits_to_be_accepted_is_served_before_the_end(serve, connect):
    entered, release = threading.Event(), threading.Event()

    def slow(message):
        entered.set()
        release.wait(60)
        return message[::-1]

    transport, address = serve(slow)
    busy = connect(address)
    stream = busy.call(b"ab")
    assert entered.wait(60)
    waiting = connect(address)
    late = waiting.call(b"cd")
    transport._server.drain(0.0, 60.0)
    release.set()
    assert busy.answer(stream)[1] == b"ba"
    assert waiting.answer(late)[1] == b"dc"
    thread, done = drain(transport, 60.0)
    for client in (busy, waiting):
        client.socket.close()
    thread.join(60)
    assert done == [True]


def test_a_drain_is_over_in_time_whatever_is_in_flight(serve, connect):
    transport, address = serve()
    client = connect(address)
    client.call(b"half", prefix=b"\0\0\0\1\0", end=False)
    began = time.monotonic()
    assert transport.drain(0.5) is False
    assert time.monotonic() - began < 30  # the call has twice as long
    client.read_to_end()


def test_a_peer_that_never_answers_the_ping_gets_its_second_goaway_all_the_same(serve):
    transport, address = serve()
    with socket.create_connection(address, 60) as silent:
        silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        began = time.monotonic()
        thread, done = drain(transport, 100.0)
        while silent.recv(65536):
            pass
        assert 0.8 < time.monotonic() - began < 50
    thread.join(60)
    assert done == [True]


def test_a_call_ends_at_its_callers_deadline_although_its_message_has_not_come(serve, connect, eventually):
    transport, address = serve()
    client = connect(address)
    patient = client.call(b"half", prefix=b"\0\0\0\0\5", end=False, grpc_timeout="1H")
    began = time.monotonic()
    hasty = [client.call(b"half", prefix=b"\0\0\0\0\5", end=False, grpc_timeout=f"{wait}m") for wait in (600, 1, 300)]
    for stream in hasty:
        assert client.answer(stream)[0]["grpc-status"] == "4"
    assert time.monotonic() - began >= 0.6
    assert is_alive(client)
    client.send(patient, b"!", end=True)
    client.flush()
    assert client.answer(patient)[1] == b"!flah"
    assert transport.statistics()["refused_total:deadline"] == 3
    eventually(lambda: transport.statistics()["in_flight"] == 0)


def test_deadlines_that_are_over_at_once_keep_nobody_busy(serve, connect):
    transport, address = serve()
    idle = [connect(address) for _ in range(20)]
    client = connect(address)
    streams = [client.call(b"half", prefix=b"\0\0\0\0\5", end=False, grpc_timeout="1n") for _ in range(200)]
    for stream in streams:
        assert client.answer(stream)[0]["grpc-status"] == "4"
    assert all(is_alive(one) for one in (client, *idle))
    assert transport.statistics()["refused_total:deadline"] == 200
