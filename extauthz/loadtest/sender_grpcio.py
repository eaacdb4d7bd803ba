"""The portable sender of Check calls, on grpcio's client, with TLS too. docs/loadtest.md says what rate it holds."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic_ns
from typing import Any

import grpc

from extauthz.loadtest.arrivals import NANOSECONDS
from extauthz.loadtest.check_answers import check_outcome
from extauthz.loadtest.ledger import Ledger
from extauthz.loadtest.outcomes import GRPC_BASE, Integers, Outcome, Records
from extauthz.loadtest.packing import CHECK_PATH
from extauthz.loadtest.sender import Numbers, Payloads, Tls, Wire

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 50),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
)

_CLOSE_SECONDS = 5.0


class GrpcioSender:
    """A `Sender` for Check calls."""

    def __init__(self, wire: Wire, payloads: Payloads) -> None:
        self._wire = wire
        self._payloads = payloads
        self._ledger = Ledger()
        self._woken = threading.Event()
        self._stopping = False
        self._under_way: set[Any] = set()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._channels = [_channel(wire) for _ in range(wire.connections)]
        methods = [channel.unary_unary(CHECK_PATH, None, None) for channel in self._channels]
        self._methods = itertools.cycle(methods)

    def open(self) -> None:
        for channel in self._channels:
            channel.subscribe(lambda connectivity: None, try_to_connect=True)
        self._thread.start()

    def offer(self, due: Integers, payloads: Numbers) -> int:
        count = self._ledger.offer(due, payloads)
        self._woken.set()
        return count

    def collect(self) -> Records:
        if self._error is not None:
            raise self._error
        return self._ledger.collect()

    def withdraw(self) -> None:
        self._ledger.withdraw()

    def close(self) -> None:
        self._stopping = True
        self._woken.set()
        self._thread.join()
        for call in tuple(self._under_way):
            call.cancel()
        # The callbacks of cancelled calls run in grpcio's threads.
        deadline = monotonic_ns() + int(_CLOSE_SECONDS * NANOSECONDS)
        while self._under_way and monotonic_ns() < deadline:
            self._woken.wait(0.001)
        for channel in self._channels:
            channel.close()

    def statistics(self) -> Mapping[str, int]:
        ledger = self._ledger
        return {"withdrawn": ledger.withdrawn, "opened": len(self._channels), "peak_in_flight": ledger.peak_in_flight}

    def _run(self) -> None:
        try:
            while not self._stopping:
                due = self._ledger.next_due()
                wait = 1.0 if due is None else (due - monotonic_ns()) / NANOSECONDS - self._wire.spin
                if wait > 0:
                    self._woken.wait(wait)
                    self._woken.clear()
                while not self._stopping and (arrival := self._ledger.take(monotonic_ns())) is not None:
                    self._call(*arrival)
        except BaseException as error:
            self._error = error

    def _call(self, due: int, payload: int) -> None:
        taken = monotonic_ns()
        left = self._wire.timeout - (taken - due) / NANOSECONDS
        if left <= 0:
            self._ledger.write(due, taken, 0, taken, Outcome.TIMEOUT, payload)
            return
        call = next(self._methods).future(self._payloads[payload], timeout=left)
        sent = monotonic_ns()
        self._under_way.add(call)

        def done(ended: Any) -> None:
            now = monotonic_ns()
            self._ledger.write(due, taken, sent, now, self._outcome(ended, now - due), payload)
            self._under_way.discard(ended)

        call.add_done_callback(done)

    def _outcome(self, call: Any, nanoseconds: int) -> int:
        code = call.code()
        if code is grpc.StatusCode.OK:
            return check_outcome(call.result())
        if code is grpc.StatusCode.CANCELLED and self._stopping:
            return Outcome.UNFINISHED
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and nanoseconds >= self._wire.timeout * NANOSECONDS:
            return Outcome.TIMEOUT
        if code is grpc.StatusCode.UNAVAILABLE:
            return _unavailable(call.details() or "")
        return GRPC_BASE - int(code.value[0])


def _unavailable(details: str) -> int:
    """grpcio says UNAVAILABLE for a server's own status and for its connections' failures; only the text differs."""
    text = details.lower()
    if "failed to connect" in text:
        refused = "connection refused" in text or "no such file" in text
        return Outcome.REFUSED if refused else Outcome.UNREACHABLE
    if any(sign in text for sign in ("connection reset", "socket closed", "broken pipe", "goaway", "endpoint closing")):
        return Outcome.RESET
    return GRPC_BASE - int(grpc.StatusCode.UNAVAILABLE.value[0])


def _channel(wire: Wire) -> grpc.Channel:
    address = wire.address
    target = f"unix:{address}" if isinstance(address, str) else _host_port(*address)
    if wire.tls is None:
        return grpc.insecure_channel(target, (*_OPTIONS, ("grpc.default_authority", wire.authority)))
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", wire.tls.name))
    return grpc.secure_channel(target, _credentials(wire.tls), options)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    authority, key, certificate = (
        Path(file).read_bytes() if file else None for file in (tls.authority, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(authority, key, certificate)
