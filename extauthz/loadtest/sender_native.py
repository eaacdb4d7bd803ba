"""The native sender: the door to the C engine (`native/`), which sends and reads in a thread without the GIL."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from extauthz.loadtest.arrivals import NANOSECONDS
from extauthz.loadtest.outcomes import RECORD, Integers, Records
from extauthz.loadtest.sender import CAPACITY, Numbers, Payloads, Wire

if TYPE_CHECKING:
    from extauthz.loadtest._sender import Engine


def available() -> tuple[bool, str]:
    """Whether the engine can be loaded, and if not, why and what to do about it."""
    try:
        import_module("extauthz.loadtest._sender")
    except ImportError as error:
        return False, f"{error} (Debian: apt install gcc libc6-dev pkg-config libnghttp2-dev, then reinstall extauthz)"
    return True, ""


class NativeSender:
    """A `Sender` for plaintext Check calls, HTTP/1.1 and h2c."""

    def __init__(self, wire: Wire, payloads: Payloads) -> None:
        from extauthz.loadtest._sender import Engine

        self._engine: Engine = Engine(
            address=wire.address,
            protocol=wire.protocol.value,
            payloads=payloads,
            headers=wire.headers,
            connections=wire.connections,
            timeout=round(wire.timeout * NANOSECONDS),
            spin=round(wire.spin * NANOSECONDS),
            capacity=CAPACITY,
        )
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._error: BaseException | None = None

    def open(self) -> None:
        self._thread.start()

    def offer(self, due: Integers, payloads: Numbers) -> int:
        return self._engine.offer(np.ascontiguousarray(due, np.int64), np.ascontiguousarray(payloads, np.uint32))

    def collect(self) -> Records:
        if self._error is not None:
            raise self._error
        return np.frombuffer(self._engine.collect(), RECORD)

    def withdraw(self) -> None:
        self._engine.withdraw()

    def close(self) -> None:
        self._engine.stop()
        self._thread.join()

    def statistics(self) -> Mapping[str, int]:
        return self._engine.statistics()

    def _run(self) -> None:
        try:
            self._engine.run()
        except BaseException as error:
            self._error = error
