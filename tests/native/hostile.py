"""Hostile peers beside a steady client: `python tests/native/hostile.py SECONDS [TRANSPORT]` attacks and reports.

Three processes: a server (native_target), attackers, and this one with the steady client, whose calls must all be
answered while connections are flooded, filled, left half-open, starved and broken around it.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))
from native_target import CALL_SECONDS, METHOD, Server
from seeds import every

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
ATTACKERS = 12
CALLS_A_SECOND = 20
"""That the steady client makes at least; a busy machine gets more time for them, in which the attacks go on."""
PATIENCE = 60.0
"""Seconds for what is only late on a busy machine."""
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", METHOD),
    (":authority", "h"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
BLOCK = Encoder().encode(HEADERS, huffman=False)


@dataclass(frozen=True)
class Report:
    """What a campaign saw. Memory is the server's, in bytes: after a first part of the time, and at the end.

    `volleys` are the writes of the attackers, each of one frame or of some hundred; `attacks` counts by kind.
    """

    calls: int
    volleys: int
    failures: list[str]
    slowest: float
    attacks: dict[str, int]
    memory_early: int
    memory_end: int
    statistics: dict[str, int]


# ---- attackers -------------------------------------------------------------------------------------------------------


class Peer:
    """A connection that an attack uses as it likes; what the server sends is thrown away unless the attack is deaf."""

    def __init__(self, address: tuple[str, int], *, deaf: bool = False, hello: bool = True) -> None:
        self.socket = socket.create_connection(address, 5)
        self.volleys = 0
        if not deaf:
            threading.Thread(target=self._swallow, daemon=True).start()
        if hello:
            self.socket.sendall(HELLO)

    def _swallow(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while self.socket.recv(1 << 20):
                pass

    def send(self, *frames: Frame | bytes) -> None:
        """Send frames, or bytes that may be some."""
        self.volleys += 1
        self.socket.sendall(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames))


def call(stream: int, data: bytes = b"\0\0\0\0\0", *, flags: tuple[str, ...] = ("END_STREAM",)) -> bytes:
    """The frames of a call."""
    headers = HeadersFrame(stream, BLOCK, flags=["END_HEADERS"])
    return headers.serialize() + DataFrame(stream, data, flags=list(flags)).serialize()


def mutated_traffic(attack: Attack) -> None:
    """Recorded traffic with some bytes changed."""
    data = bytearray(attack.random.choice(attack.seeds))
    for _ in range(attack.random.randrange(8)):
        data[attack.random.randrange(len(data))] = attack.random.randrange(256)
    attack.open(hello=False).send(bytes(data))
    attack.rest(0.05)


def random_bytes(attack: Attack) -> None:
    """Anything, behind a preface."""
    attack.open().send(attack.random.randbytes(attack.random.randrange(1, 5000)))
    attack.rest(0.02)


def random_frames(attack: Attack) -> None:
    """Well-formed frames of every type, with payloads that are not."""
    peer, rng = attack.open(), attack.random
    for _ in range(50):
        payload = rng.randbytes(rng.randrange(64))
        head = struct.pack(">I", len(payload))[1:] + bytes((rng.randrange(11), rng.randrange(256)))
        peer.send(head + struct.pack(">I", rng.randrange(8)) + payload)


def rapid_resets(attack: Attack) -> None:
    """Calls that are taken back at once."""
    peer = attack.open()
    for stream in range(1, 20_000, 2):
        peer.send(HeadersFrame(stream, BLOCK, flags=["END_HEADERS"]), RstStreamFrame(stream, 8))


def pings(attack: Attack) -> None:
    """A flood of PING."""
    flood(attack, PingFrame(0, b"12345678"))


def settings(attack: Attack) -> None:
    """A flood of SETTINGS."""
    flood(attack, SettingsFrame(0, {3: 7}))


def unread_pings(attack: Attack) -> None:
    """A flood of PING from a peer that does not read the answers."""
    flood(attack, PingFrame(0, b"12345678"), deaf=True)


def empty_data(attack: Attack) -> None:
    """A call of empty frames without end."""
    flood(attack, DataFrame(1, b""), opening=HeadersFrame(1, BLOCK, flags=["END_HEADERS"]))


def continuations(attack: Attack) -> None:
    """A header block without end."""
    flood(attack, ContinuationFrame(1, b""), opening=HeadersFrame(1, BLOCK))


def flood(attack: Attack, frame: Frame, *, opening: Frame | None = None, deaf: bool = False) -> None:
    """The same frame until the server has had enough, or for a second."""
    peer = attack.open(deaf=deaf)
    peer.socket.settimeout(1.0)
    if opening is not None:
        peer.send(opening)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        peer.send(frame.serialize() * 500)


def header_bomb(attack: Attack) -> None:
    """One large header in the table, then thousands of references to it."""
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 12_000
    attack.open().send(HeadersFrame(1, bomb, flags=["END_HEADERS"]))
    attack.rest(0.1)


def half_open(attack: Attack) -> None:
    """Nothing, or a part of the preface, and then silence."""
    peers = [attack.open(hello=False) for _ in range(20)]
    for peer in peers:
        peer.send(HELLO[: attack.random.randrange(len(HELLO))])
    attack.rest(0.5)


def slow_sender(attack: Attack) -> None:
    """A message that comes a byte at a time, and one that announces more than ever comes."""
    peer = attack.open()
    peer.send(HeadersFrame(3, BLOCK, flags=["END_HEADERS"]), DataFrame(3, b"\0\0\x0f\xff\xff" + bytes(16_000)))
    for byte in call(1, b"\0\0\0\0\4abcd"):
        peer.send(bytes((byte,)))
        time.sleep(0.01)


def unfinished_messages(attack: Attack) -> None:
    """As much of as many messages as flow control lets through, and the end of none."""
    peer = attack.open()
    peer.socket.settimeout(2.0)
    for stream in range(1, 200, 2):
        peer.send(HeadersFrame(stream, BLOCK, flags=["END_HEADERS"]), DataFrame(stream, b"\0\0\x0f\xff\xff"))
        for _ in range(3):
            peer.send(DataFrame(stream, bytes(16_384)))
    attack.rest(0.2)


def huge_announcement(attack: Attack) -> None:
    """Messages of 2 GB, announced."""
    peer = attack.open()
    for stream in range(1, 100, 2):
        peer.send(HeadersFrame(stream, BLOCK, flags=["END_HEADERS"]), DataFrame(stream, b"\0\x7f\xff\xff\xff"))


def deaf_caller(attack: Attack) -> None:
    """Large answers asked for and never read."""
    peer = attack.open(deaf=True)
    peer.socket.settimeout(1.0)
    peer.send(SettingsFrame(0, {4: 2**31 - 1}), WindowUpdateFrame(0, 2**31 - 1 - 65_535))
    for stream in range(1, 100, 2):
        peer.send(call(stream, b"\0\0\0\0\3big"))
    attack.rest(0.5)


def closed_window(attack: Attack) -> None:
    """Answers asked for that flow control never lets out."""
    peer = attack.open()
    peer.send(SettingsFrame(0, {4: 0}))
    for stream in range(1, 500, 2):
        peer.send(call(stream, b"\0\0\0\0\3big"))
    attack.rest(0.5)


def many_calls(attack: Attack) -> None:
    """Good calls, as fast as they go."""
    peer = attack.open()
    for first in range(1, 10_000, 100):
        peer.send(b"".join(call(stream) for stream in range(first, first + 100, 2)))


def come_and_go(attack: Attack) -> None:
    """Connections that end as soon as they are open, half of them with a reset."""
    for number in range(100):
        peer = attack.open(hello=bool(number % 3))
        if number % 2:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()


ATTACKS: tuple[Callable[[Attack], None], ...] = (
    mutated_traffic,
    random_bytes,
    random_frames,
    rapid_resets,
    pings,
    settings,
    unread_pings,
    empty_data,
    continuations,
    header_bomb,
    half_open,
    slow_sender,
    unfinished_messages,
    huge_announcement,
    deaf_caller,
    closed_window,
    many_calls,
    come_and_go,
)


class Attack:
    """One attack under way: its connections are closed when it is over."""

    def __init__(self, address: tuple[str, int], rng: random.Random, seeds: list[bytes], over: threading.Event) -> None:
        self.random = rng
        self.seeds = seeds
        self._address = address
        self._over = over
        self._peers: list[Peer] = []

    def open(self, **options: bool) -> Peer:
        """A new connection."""
        peer = Peer(self._address, **options)
        self._peers.append(peer)
        return peer

    def rest(self, seconds: float) -> None:
        """Leave things as they are for a moment."""
        self._over.wait(seconds)

    def close(self) -> int:
        """Close every connection; how much was sent over them, in volleys."""
        for peer in self._peers:
            peer.socket.close()
        return sum(peer.volleys for peer in self._peers)


def attack(
    address: tuple[str, int], over: threading.Event, seed: int, seeds: list[bytes]
) -> tuple[int, dict[str, int]]:
    """Attack from several threads at once until it is over; how many volleys, and how often each attack was tried."""
    tried = dict.fromkeys((one.__name__ for one in ATTACKS), 0)
    volleys: list[int] = []

    def attacker(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        order = rng.sample(ATTACKS, len(ATTACKS))
        turn = 0
        while not over.is_set():
            kind = order[turn % len(order)]
            turn += 1
            tried[kind.__name__] += 1
            one = Attack(address, rng, seeds, over)
            # That the server ends a connection is what is hoped for.
            with contextlib.suppress(OSError):
                kind(one)
            volleys.append(one.close())

    threads = [threading.Thread(target=attacker, args=(number,)) for number in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(volleys), tried


# ---- the steady client --------------------------------------------------------------------------------


def steady(server: Server, seconds: float) -> tuple[int, list[str], float, int]:
    """Calls over one connection for so long: how many, failures, the slowest, the server's memory after a third."""
    calls, failures, slowest, memory = 0, [], 0.0, 0
    start = time.monotonic()
    with grpc.insecure_channel("{}:{}".format(*server.address)) as channel:
        check = channel.unary_unary(METHOD)
        answers = {message: check(message, timeout=30, wait_for_ready=True) for message in (server.good, server.bad)}
        while (began := time.monotonic()) < start + seconds or (
            (calls <= seconds * CALLS_A_SECOND or not memory) and began < start + seconds + PATIENCE
        ):
            message = server.bad if calls % 2 else server.good
            try:
                if check(message, timeout=30) != answers[message]:
                    failures.append("a wrong answer")
            except grpc.RpcError as error:
                failures.append(f"{error.code()}: {error.details()}")  # type: ignore[attr-defined]
            calls += 1
            slowest = max(slowest, time.monotonic() - began)
            if not memory and began > start + seconds / 3:
                memory = server.statistics()["memory"]
            time.sleep(0.001)
    return calls, failures, slowest, memory


def settle(server: Server, seconds: float) -> dict[str, int]:
    """Wait until nothing of the attacks is left, at most so long; the statistics then."""
    end = time.monotonic() + seconds
    while (found := server.statistics()).get("connections", found["in_flight"]) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def campaign(seconds: float, seed: int = 1, transport: str = "native") -> Report:
    """Attack a server for so long, beside a steady client."""
    server = Server(transport)
    command = [sys.executable, __file__, "attack", json.dumps(server.address), str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attackers:
        assert attackers.stdout is not None
        assert attackers.stdout.readline() == "attacking\n"
        calls, failures, slowest, early = steady(server, seconds)
        volleys, tried = json.loads(attackers.communicate()[0])
    statistics = settle(server, CALL_SECONDS + PATIENCE)
    memory = statistics.pop("memory")
    if status := server.close():
        failures.append(f"the server ended with status {status}")
    return Report(calls, volleys, failures, slowest, tried, early, memory, statistics)


def main(arguments: list[str]) -> None:
    """The attackers' process, which attacks until its standard input ends, or the whole, by the first argument."""
    if arguments[0] == "attack":
        over = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
        print("attacking", flush=True)
        print(json.dumps(attack(tuple(json.loads(arguments[1])), over, int(arguments[2]), every())))
    else:
        print(json.dumps(asdict(campaign(float(arguments[0]), 1, *arguments[1:])), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
