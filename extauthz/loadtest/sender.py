"""The seam between a load test and the way its calls travel: what every sender takes, gives and promises.

A sender knows addresses, payloads and protocols; it knows nothing of rates, tokens, histograms or reports. `native` is
the C engine; `grpcio` and `epoll` are the portable ones, which also speak TLS. `sender_choice` says which of them runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

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
