"""The server that hostile peers attack, in a process of its own: `python native_target.py TRANSPORT [idle]`.

It decides real CheckRequests by the policies of tests/hostile, and counts what it lets in beside the one message with a
good token, and what its decisions break on. `Server` starts it and asks it how it is. With `idle` its limits let
connections stay that do nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "hostile"))

METHOD = "/envoy.service.auth.v3.Authorization/Check"
CALL_SECONDS = 3.0
BIG = 200_000
"""Bytes of the answer to the message `big`."""


def serve(transport_name: str, *, idle: bool) -> None:
    """Serve until standard input ends; a line on it is answered with statistics and resident memory, as JSON."""
    from hostile_subject import allows, make_subject

    from extauthz.checkapi.build import check_request
    from extauthz.errors import MalformedCheckRequest
    from extauthz.server import grpcio, native
    from extauthz.server.listeners import Address
    from extauthz.server.transport import Limits

    subject = make_subject()
    good, bad = (
        check_request("GET", "/allowed", [("authorization", f"Bearer {token}")], host="h")
        for token in (subject.keys[0].token(subject.claims()), subject.keys[0].token(subject.claims(exp=1)))
    )
    counted = {"allowed": 0, "wrongly_allowed": 0, "crashed": 0}

    def check(message: bytes) -> bytes:
        if message == b"big":
            return bytes(BIG)
        try:
            answer = subject.check(message)
        except MalformedCheckRequest:
            raise
        except Exception:
            counted["crashed"] += 1
            raise
        if allows(answer):
            counted["allowed"] += 1
            counted["wrongly_allowed"] += message != good
        return answer

    native.CALL_SECONDS = CALL_SECONDS
    limits = Limits(message_bytes=1 << 20, preface_seconds=1.0, idle_seconds=5.0)
    if idle:
        limits = Limits(message_bytes=1 << 20, preface_seconds=600.0)
    make: Any = {"native": native.NativeTransport, "grpcio": grpcio.GrpcioTransport}[transport_name]
    transport = make([Address(host="127.0.0.1")], {METHOD: check}, limits)
    (address,) = transport.bind()
    transport.set_serving(True)
    transport.start()
    assert good is not None
    assert bad is not None
    print(json.dumps([address.host, address.port, good.hex(), bad.hex()]), flush=True)
    for _ in sys.stdin:
        # The extension's own counters say more than those that the transports have in common.
        found = transport._server.statistics() if transport_name == "native" else transport.statistics()
        print(json.dumps({**_usage(), **counted, **found}), flush=True)
    transport.stop()


def _usage() -> dict[str, float]:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    times = os.times()
    return {"memory": resident, "cpu": times.user + times.system}


class Server:
    """`serve` in a process of its own. `good` is allowed by it, `bad` is denied."""

    def __init__(self, transport: str = "native", *, idle: bool = False) -> None:
        command = [sys.executable, __file__, transport, *(["idle"] if idle else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        host, port, good, bad = self._line()
        self.address: tuple[str, int] = (host, port)
        self.good, self.bad = bytes.fromhex(good), bytes.fromhex(bad)

    def statistics(self) -> dict[str, Any]:
        """What it counts, its memory in bytes and the processor time that it has used in seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return dict(self._line())

    def close(self) -> int:
        """End it; its exit status."""
        self.process.communicate(timeout=60)
        return self.process.returncode

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


if __name__ == "__main__":
    serve(sys.argv[1], idle="idle" in sys.argv[2:])
