"""Much of what is ordinary: a million calls, a hundred thousand connections, ten thousand that do nothing.

`python tests/native/endurance.py CALLS CONNECTIONS IDLE [IDLE_TRANSPORT]` reports on each as JSON. What leaks a few
bytes for a call or a connection shows in the server's resident memory; what polls its connections, in its processor
time.
"""

from __future__ import annotations

import json
import resource
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hostile import HELLO, call
from hyperframe.frame import PingFrame
from native_target import METHOD, Server

CALLS_OF_A_CONNECTION = 250
"""Their answers fit into the first flow control window."""

ASKED = b"answered"
PING = PingFrame(0, ASKED).serialize()
PONG = PingFrame(0, ASKED, flags=["ACK"]).serialize()


@dataclass(frozen=True)
class Endurance:
    """Bytes that the server grew by between the first fifth and the end, and what it counted in all."""

    calls: int
    connections: int
    growth: int
    seconds: float
    left_open: int


@dataclass(frozen=True)
class Idle:
    """Idle connections: bytes that they take, the server's processor time in a second of theirs, and how one call
    fared.
    """

    connections: int
    bytes_held: int
    cpu_of_a_second: float
    answered: bool
    bytes_after: int


def endure(calls: int, connections: int) -> Endurance:
    """Make so many calls of the native transport, then open and close so many connections."""
    server = Server()
    message = b"\0" + struct.pack(">I", len(server.good)) + server.good
    batch = HELLO + b"".join(call(stream, message) for stream in range(1, 2 * CALLS_OF_A_CONNECTION, 2)) + PING
    began = time.monotonic()
    rounds = max(5, calls // CALLS_OF_A_CONNECTION)
    early = 0
    for number in range(rounds):
        _answered(server.address, batch)
        if number == rounds // 5:
            early = server.statistics()["memory"]
    growth = server.statistics()["memory"] - early
    for number in range(connections):
        _come_and_go(server.address, number)
        if number == connections // 5:
            early = server.statistics()["memory"]
    found = _settled(server)
    growth = max(growth, found["memory"] - early)
    result = Endurance(
        found["allowed"], rounds + connections, growth, time.monotonic() - began, found.get("connections", 0)
    )
    assert server.close() == 0
    return result


def _answered(address: tuple[str, int], batch: bytes) -> None:
    with socket.create_connection(address, 60) as peer:
        peer.sendall(batch)
        tail = b""
        while PONG not in tail:
            data = peer.recv(1 << 18)
            if not data:
                raise ConnectionError("closed before everything was answered")
            tail = tail[-len(PONG) :] + data
        # The native transport answers in order, so that the PING's answer is the last; then each side closes.
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 18):
            pass


def _come_and_go(address: tuple[str, int], number: int) -> None:
    peer = socket.create_connection(address, 60)
    if number % 3:
        peer.sendall(HELLO if number % 3 == 1 else HELLO[: number % len(HELLO)])
    # A reset leaves no port waiting for its time: there are not as many ports as connections here.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def _settled(server: Server) -> dict[str, int]:
    end = time.monotonic() + 60
    while (found := server.statistics()).get("connections") and time.monotonic() < end:
        time.sleep(0.1)
    return found


def stay_idle(connections: int, transport: str = "native") -> Idle:
    """Open so many connections, most of them complete, some without their preface; and leave them alone."""
    server = Server(transport, idle=True)
    before = server.statistics()["memory"]
    peers = []
    for number in range(connections):
        peer = socket.create_connection(server.address, 60)
        if number % 10:
            peer.sendall(HELLO)
        peers.append(peer)
    end = time.monotonic() + 60
    while server.statistics().get("connections", connections) < connections and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.5)
    first = server.statistics()
    time.sleep(2.0)
    second = server.statistics()
    with grpc.insecure_channel("{}:{}".format(*server.address)) as channel:
        channel.unary_unary(METHOD)(server.good, timeout=60, wait_for_ready=True)
    answered = server.statistics()["allowed"] == 1
    for peer in peers:
        peer.close()
    after = _settled(server)["memory"]
    assert server.close() == 0
    return Idle(connections, second["memory"] - before, (second["cpu"] - first["cpu"]) / 2, answered, after - before)


def allow_files(count: int) -> bool:
    """Let this process, and those that it starts, have so many open files; whether that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count and (hard == resource.RLIM_INFINITY or hard >= count):
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= count


def main(arguments: list[str]) -> None:
    """Report on both."""
    calls, connections, idle = (int(number) for number in arguments[:3])
    transport = arguments[3] if len(arguments) > 3 else "native"
    if not allow_files(idle + 100):
        raise SystemExit(f"{idle} connections need as many open files: raise `ulimit -n`")
    found = {"endurance": asdict(endure(calls, connections)), "idle": asdict(stay_idle(idle, transport))}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
