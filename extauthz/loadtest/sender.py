"""The seam between a load test and the way its calls travel: what every sender takes, gives and promises.

A sender knows addresses, payloads and protocols; it knows nothing of rates, tokens, histograms or reports. `native` is
the C engine; `grpcio` and `epoll` are the portable ones, which also speak TLS. `choose` says which of them runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

from extauthz.errors import UsageError
from extauthz.loadtest.outcomes import Integers, Protocol, Records

Numbers = npt.NDArray[np.uint32]

Payloads = tuple[bytes, ...]
"""CheckRequests (check), whole requests (http1), or packed header fields and body (h2c)."""

Address = str | tuple[str, int]
"""The path of a Unix socket, or a numeric host and a port."""

CAPACITY = 1 << 17
"""Arrivals that a sender holds ahead of time, and calls that it may have under way or finished and not collected."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What a TLS client needs: the authority (PEM file, "" for the system's), the name that the server must have, and
    an own certificate and key (PEM files, "" for none). `verify` False accepts any certificate.
    """

    name: str
    authority: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Wire:
    """Where calls go, and how.

    `headers` are the packed header fields of each Check call, `authority` what its server is called (`:authority`).
    `timeout` counts in seconds from when a call is due; `spin` is how long (seconds) a sender may wait awake for the
    next one.
    """

    protocol: Protocol
    address: Address
    headers: bytes = field(default=b"", repr=False)
    authority: str = ""
    connections: int = 1
    timeout: float = 5.0
    spin: float = 0.0
    tls: Tls | None = None


class Sender(Interface):
    """One running sender. `open`, then `offer` and `collect` again and again, then `close`; all by one thread.

    Every arrival that was offered and not withdrawn becomes exactly one record: an answer, an error, or unfinished.
    """

    def __init__(self, wire: Wire, payloads: Payloads) -> None: ...

    def open(self) -> None:
        """Start the sender's own thread and connect, without waiting for either."""
        ...

    def offer(self, due: Integers, payloads: Numbers) -> int:
        """Take arrivals (CLOCK_MONOTONIC ns, ascending, after those before; numbers of payloads); how many fit."""
        ...

    def collect(self) -> Records:
        """The records of calls that have ended since the last time (`outcomes.RECORD`). Raises what ended it."""
        ...

    def withdraw(self) -> None:
        """Forget the arrivals that are not due yet; what is under way goes on. `statistics` says how many they were."""
        ...

    def close(self) -> None:
        """End. Calls under way become unfinished records, which `collect` still gives."""
        ...

    def statistics(self) -> Mapping[str, int]:
        """`withdrawn` arrivals, connections `opened`, and the `peak_in_flight` of calls."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sender runs, and the reason, in words for the report."""

    name: str
    reason: str


def choose(wanted: str, protocol: Protocol, *, tls: bool, native: tuple[bool, str]) -> Choice:
    """Pick `native`, `grpcio` or `epoll` for `--sender auto|native|portable`.

    `native` is `sender_native.available()`. Raises UsageError where what is wanted cannot be had.
    """
    available, explanation = native
    portable = "grpcio" if protocol is Protocol.CHECK else "epoll"
    if wanted not in ("auto", "native", "portable"):
        raise UsageError(f"--sender {wanted!r}: use auto, native or portable")
    if wanted == "native" or (wanted == "auto" and available and not tls):
        if tls:
            raise UsageError("--sender native does not speak TLS: use --sender portable, or leave TLS out")
        if not available:
            raise UsageError(f"--sender native is not available: {explanation}")
        return Choice("native", "asked for" if wanted == "native" else "it is built, and no TLS was asked for")
    if protocol is Protocol.H2C:
        reason = (
            ", which does not speak TLS" if tls else "" if available else f", which is not available: {explanation}"
        )
        raise UsageError(f"--http 2 needs the native sender{reason}")
    if wanted == "portable":
        return Choice(portable, "asked for")
    return Choice(portable, "TLS was asked for" if tls else f"native is not available: {explanation}")


def load(choice: Choice) -> type[Sender]:
    """The class of the sender that was chosen; imports no other."""
    if choice.name == "native":
        from extauthz.loadtest.sender_native import NativeSender

        return NativeSender
    if choice.name == "grpcio":
        from extauthz.loadtest.sender_grpcio import GrpcioSender

        return GrpcioSender
    from extauthz.loadtest.sender_epoll import EpollSender

    return EpollSender
