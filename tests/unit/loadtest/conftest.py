"""Servers that answer, stall, break off or talk nonsense on command, and a way to put a sender to work on them."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, monotonic_ns, sleep

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from extauthz.checkapi.build import check_request
from extauthz.loadtest import sender_choice, sender_native
from extauthz.loadtest.outcomes import Protocol, Records
from extauthz.loadtest.packing import check_fields, packed
from extauthz.loadtest.sender import Address, Sender, Tls, Wire
from extauthz.loadtest.sender_choice import Choice
from extauthz.server import listeners, native, transports
from extauthz.server.transport import CHECK_METHOD, DEFAULT_LIMITS, Handler, TlsOptions

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES = 9
PATIENCE = 60.0
"""Seconds for what is only late on a busy machine."""


class CheckServer:
    """A running transport in this process."""

    def __init__(self, handler: Handler, name: str, listen: str, tls: TlsOptions | None) -> None:
        address = listeners.parse(listen)
        self.transport, _ = transports.make(name, [address], {CHECK_METHOD: handler}, DEFAULT_LIMITS, tls=tls)
        bound = self.transport.bind()[0]
        self.target = str(bound)
        self.address: Address = bound.path if bound.is_unix else (bound.host, bound.port)
        self.transport.start()
        self.transport.set_serving(True)


class RawServer:
    """Accepts TCP connections and hands each to `behave` in a thread of its own; closes it afterwards."""

    def __init__(self, behave: Callable[[socket.socket], None], port: int) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.address: Address = ("127.0.0.1", self._listener.getsockname()[1])
        self.target = f"127.0.0.1:{self.address[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer = self._listener.accept()[0]
                self.connections += 1
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            self._behave(peer)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Lab:
    """Starts servers, and senders that are driven against them."""

    check_message = check_request("GET", "/productpage", [("authorization", "Bearer x.y.z")], host="shop") or b""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def serve_check(
        self, handler: Handler, *, listen: str = "127.0.0.1:0", tls: TlsOptions | None = None
    ) -> CheckServer:
        """A server of Check calls, on the native transport where it can be."""
        fast = native.available()[0] and tls is None
        server = CheckServer(handler, "native" if fast else "grpcio", listen, tls)
        self._stack.callback(server.transport.stop)
        return server

    def serve_raw(self, behave: Callable[[socket.socket], None], port: int = 0) -> RawServer:
        """A server that does with each connection what `behave` does."""
        server = RawServer(behave, port)
        self._stack.callback(server.close)
        return server

    def serve_http(self, *answers: bytes) -> RawServer:
        """An HTTP/1.1 server that gives these answers in turn on each connection, the last one again and again.

        An empty answer ends the connection.
        """

        def behave(peer: socket.socket) -> None:
            left = list(answers)
            received = b""
            while data := peer.recv(65536):
                received += data
                while b"\r\n\r\n" in received:
                    received = received.partition(b"\r\n\r\n")[2]
                    answer = left.pop(0) if len(left) > 1 else left[0]
                    if not answer:
                        return
                    peer.sendall(answer)

        return self.serve_raw(behave)

    def serve_frames(self, *answers: bytes) -> RawServer:
        """An HTTP/2 server that, after its SETTINGS, gives these frames in turn, each when a request has come.

        Empty ones end the connection.
        """

        def behave(peer: socket.socket) -> None:
            peer.sendall(self.frame(4, 0, 0))
            received, at = b"", len(PREFACE)
            left = list(answers)
            while data := peer.recv(65536):
                received += data
                while len(received) >= at + FRAME_HEAD_BYTES:
                    length = int.from_bytes(received[at : at + 3], "big")
                    kind, flags = received[at + 3], received[at + 4]
                    if kind == 4 and not flags & 1:
                        peer.sendall(self.frame(4, 1, 0))
                    if kind in (0, 1) and flags & 1 and left:
                        answer = left.pop(0)
                        if not answer:
                            return
                        peer.sendall(answer)
                    at += FRAME_HEAD_BYTES + length

        return self.serve_raw(behave)

    @staticmethod
    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        """One HTTP/2 frame."""
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    @staticmethod
    def check_wire(
        address: Address, *, timeout: float = PATIENCE, connections: int = 2, tls: Tls | None = None
    ) -> Wire:
        """Check calls to an address."""
        headers = packed(check_fields("shop", timeout))
        return Wire(Protocol.CHECK, address, headers, "shop", connections, timeout, tls=tls)

    @staticmethod
    def http_wire(
        address: Address,
        protocol: Protocol = Protocol.HTTP1,
        *,
        timeout: float = PATIENCE,
        connections: int = 2,
        tls: Tls | None = None,
    ) -> Wire:
        """Plain requests to an address."""
        return Wire(protocol, address, b"", "shop", connections, timeout, tls=tls)

    def open(self, name: str, wire: Wire, payloads: Sequence[bytes]) -> Sender:
        """A sender of this name at work; the test is passed over where the engine was not built."""
        if name == "native" and not sender_native.available()[0]:
            pytest.skip("the native sender is not available")
        working = sender_choice.load(Choice(name, "a test"))(wire, tuple(payloads))
        working.open()
        return working

    @staticmethod
    def eventually(condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, "it did not come to hold"
            sleep(0.005)

    def drive(
        self, name: str, wire: Wire, payloads: Sequence[bytes], *, count: int = 20, rate: float = 1000.0
    ) -> Records:
        """Send `count` calls at a constant rate, payloads in turn; their records in the order they were due."""
        working = self.open(name, wire, payloads)
        try:
            due = monotonic_ns() + 50_000_000 + (np.arange(count) * 1e9 / rate).astype(np.int64)
            which = np.arange(count, dtype=np.uint32) % np.uint32(len(payloads))
            records, offered, deadline = [working.collect()], 0, monotonic() + 2 * PATIENCE
            while sum(map(len, records)) < count and monotonic() < deadline:
                offered += working.offer(due[offered:], which[offered:])
                sleep(0.005)
                records.append(working.collect())
        finally:
            working.close()
        records.append(working.collect())
        return np.sort(np.concatenate(records), order="due")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Servers and senders; all of them end with the test."""
    with ExitStack() as stack:
        yield Lab(stack)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A local port on which nobody listens, and nobody else can; a server of the test may."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A self-signed certificate for localhost and 127.0.0.1, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    public, private = tmp_path / "certificate.pem", tmp_path / "key.pem"
    public.write_bytes(signed.public_bytes(encoding))
    private.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return str(public), str(private)
