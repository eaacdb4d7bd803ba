"""What a peer can make the native transport hold, and that it gives it back."""

import contextlib
import gc
import socket
from pathlib import Path

import h2.settings
import pytest

from extauthz.server import native

MIB = 1 << 20
CODES = h2.settings.SettingCodes
LARGEST_WINDOW = 2**31 - 1


def resident_bytes():
    """Of this process."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def is_alive(client):
    return client.answer(client.call(b"ab"))[1] == b"ba"


def test_messages_of_16_mib_pass_in_both_directions(serve, connect):
    client = connect(serve()[1], settings={CODES.INITIAL_WINDOW_SIZE: 4 * MIB})
    message = bytes(range(256)) * (16 * MIB // 256)
    stream = client.begin()
    data = memoryview(b"\0" + len(message).to_bytes(4, "big") + message)
    while data:
        client.read_until(lambda: client.h2.local_flow_control_window(stream) > 0)
        part = min(client.h2.local_flow_control_window(stream), 16384, len(data))
        client.h2.send_data(stream, bytes(data[:part]), end_stream=part == len(data))
        client.flush()
        data = data[part:]
    assert client.answer(stream, 60)[1] == message[::-1]


@pytest.mark.parametrize("window", [1, 3, 5, 6])
def test_answers_pass_through_windows_of_any_size(serve, connect, window):
    client = connect(serve()[1], settings={CODES.INITIAL_WINDOW_SIZE: window})
    assert client.answer(client.call(b"message"))[1] == b"egassem"


def test_a_message_larger_than_the_limit_is_refused_when_it_is_announced(serve, connect):
    transport, address = serve(message_bytes=MIB)
    client = connect(address)
    before = resident_bytes()
    for _ in range(50):
        fields, _ = client.answer(client.call(prefix=b"\0\x7f\xff\xff\xff", end=False))
        assert fields["grpc-status"] == "8"
    assert resident_bytes() - before < 16 * MIB
    assert transport.statistics()["in_flight"] == 0


def test_an_unfinished_message_holds_what_has_come_of_it_and_not_what_was_announced(serve, connect):
    transport, address = serve()
    clients = [connect(address) for _ in range(10)]
    for client in clients:
        for _ in range(10):
            client.call(b"x", prefix=b"\0\0\xff\xff\xff", end=False)
    assert all(is_alive(client) for client in clients)
    assert transport._server.statistics()["held_bytes"] == 100 * 4096


def begin_messages(client, count):
    """Send so many messages of almost 1 MiB, and the end of none."""
    for _ in range(count):
        stream = client.begin()
        client.send(stream, b"\0\0\x0f\xff\xff")
        for _ in range(60):
            while client.h2.local_flow_control_window(stream) < 16384:
                if not client.read():
                    raise ConnectionResetError
            client.send(stream, bytes(16384))
            client.flush()


def test_whoever_holds_the_most_is_cut_off_when_memory_is_short(serve, connect, monkeypatch, eventually):
    monkeypatch.setattr(native, "HELD_MESSAGES", 4)
    transport, address = serve(message_bytes=MIB)
    steady = connect(address)
    small = steady.call(b"x" * 1000, prefix=b"\0\0\0\x10\0", end=False)
    hog = connect(address)
    # All of them may be on their way before the first is read.
    with contextlib.suppress(ConnectionError):
        begin_messages(hog, 6)
    hog.read_to_end()
    eventually(lambda: transport.statistics()["refused_total:held_bytes"] == 1)
    steady.send(small, bytes(4096 - 1000), end=True)
    steady.flush()
    assert len(steady.answer(small)[1]) == 4096
    assert transport._server.statistics()["held_bytes"] == 0


def test_answers_that_are_not_taken_count_as_held(serve, connect, eventually):
    transport, address = serve(lambda message: bytes(MIB))
    client = connect(address, settings={CODES.INITIAL_WINDOW_SIZE: 0})
    for _ in range(8):
        client.call()
    eventually(lambda: transport._server.statistics()["held_bytes"] == 8 * MIB)
    client.socket.close()
    eventually(lambda: transport._server.statistics()["held_bytes"] == 0)


def test_idle_connections_cost_little(serve):
    """10,000 of them cost less than 200 MiB: 20 KiB each."""
    transport, address = serve()
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
    gc.collect()
    idle = []
    try:
        before = None
        for number in range(400):
            idle.append(socket.create_connection(address, 60))
            idle[-1].sendall(hello)
            assert idle[-1].recv(65536)
            if number == 100:
                before = resident_bytes()
        assert transport.statistics()["connections"] == 400
        assert (resident_bytes() - before) / 300 < 20 * 1024
    finally:
        for one in idle:
            one.close()


def test_calls_and_connections_leave_nothing_behind(serve, connect):
    _, address = serve()

    def work(connections, calls):
        for _ in range(connections):
            client = connect(address)
            streams = [client.call(b"m" * 500) for _ in range(calls)]
            assert all(client.answer(stream)[1] for stream in streams)
            client.socket.close()
        gc.collect()

    work(20, 20)
    before = resident_bytes()
    work(60, 30)
    # The h2 clients of this process are in it, too.
    assert resident_bytes() - before < 4 * MIB
