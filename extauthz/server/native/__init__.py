"""The fast transport: a thin door to the C extension `_native` (native.h tells how it works).

The extension is optional. `available` says whether it can be loaded and, if not, what to install; nothing else here may
be used without it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from extauthz.errors import MalformedCheckRequest
from extauthz.server import listeners
from extauthz.server.listeners import Address
from extauthz.server.native.health import Health
from extauthz.server.transport import (
    DEFAULT_LIMITS,
    HEALTH_CHECK_METHOD,
    HEALTH_WATCH_METHOD,
    CallFailed,
    Handler,
    Limits,
    Status,
)

if TYPE_CHECKING:
    import socket

    from extauthz.server.native._native import Server

CALL_SECONDS = 60.0
"""From the first header of a call to its last byte, and for a full socket to take anything at all."""

AGE_GRACE_SECONDS = 30.0
"""For the calls in flight of a connection that is closed for its age or idleness."""

HELD_MESSAGES = 16
"""Unfinished messages and unsent answers of all connections may hold as much as this many messages of full size."""

INTERNAL_TEXT = "internal error"

_NOT_REFUSALS = ("connections", "in_flight", "connections_total", "calls_total", "resets_total")
_BYTES = ("received_bytes_total", "sent_bytes_total")


def available() -> tuple[bool, str]:
    """Whether the extension can be loaded; if not, why, and what to do about it."""
    try:
        from extauthz.server.native import _native
    except ImportError as error:
        return False, f"{error}; install gcc, pkg-config and libnghttp2-dev, then reinstall extauthz"
    return True, f"nghttp2 {_native.nghttp2_version}"


def explain(error: Exception) -> tuple[int, str]:
    """The gRPC status and text that a handler's exception ends its call with."""
    if isinstance(error, MalformedCheckRequest):
        return Status.INVALID_ARGUMENT, str(error)
    if isinstance(error, CallFailed):
        return error.status, error.text
    return Status.INTERNAL, INTERNAL_TEXT


class NativeTransport:
    """See `transport.Transport`. One thread answers everything: handlers are never run side by side."""

    name = "native"

    def __init__(
        self,
        addresses: Sequence[Address],
        handlers: Mapping[str, Handler],
        limits: Limits = DEFAULT_LIMITS,
        *,
        mode: int = 0o660,
        share: bool = False,
    ) -> None:
        """`mode` is that of Unix sockets; `share` lets other processes listen on the same ports (SO_REUSEPORT)."""
        self._addresses = addresses
        self._mode = mode
        self._share = share
        self._health = Health()
        probes = {HEALTH_CHECK_METHOD: self._health.check, HEALTH_WATCH_METHOD: self._health.watch}
        self._server = _server(handlers, probes, limits)
        self._sockets: list[socket.socket] = []
        self._paths: list[tuple[str, int]] = []
        self._thread: threading.Thread | None = None
        self._last_statistics: Mapping[str, int] = {}

    def bind(self) -> Sequence[Address]:
        try:
            return [self._bind(address) for address in self._addresses]
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        for one in self._sockets:
            self._server.listen(one.detach())
        self._sockets.clear()
        self._thread = threading.Thread(target=self._serve, name="native-transport", daemon=True)
        self._thread.start()

    def set_serving(self, serving: bool) -> None:
        self._health.serving = serving

    def drain(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._server.drain(0.0, seconds)
            thread.join(seconds + 1.0)
        complete = time.monotonic() < deadline
        self.stop()
        return complete

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            self._server.stop()
            thread.join()
        self._last_statistics = self.statistics()
        self._server.close()
        for one in self._sockets:
            one.close()
        self._sockets.clear()
        for path, inode in self._paths:
            listeners.remove_unix_path(path, inode)
        self._paths.clear()

    def statistics(self) -> Mapping[str, int]:
        try:
            counters = self._server.statistics()
        except RuntimeError:
            # Closed: what was counted stays counted, and nothing is open any more.
            return {**self._last_statistics, "connections": 0, "in_flight": 0}
        found = {name: counters[name] for name in (*_NOT_REFUSALS, *_BYTES)}
        for name, value in counters.items():
            if name.startswith("refused_"):
                found[f"refused_total:{name.removeprefix('refused_')}"] = value
        return found

    def _serve(self) -> None:
        while True:
            try:
                self._server.serve()
                return
            except (SystemExit, KeyboardInterrupt):
                # Raised by a handler. It ends its call, as any other error does, and nobody else's.
                continue

    def _bind(self, address: Address) -> Address:
        listener = listeners.bind(address, mode=self._mode, share=self._share)
        self._sockets.append(listener)
        if not address.is_unix:
            return listeners.bound(listener)
        self._paths.append((address.path, os.lstat(address.path).st_ino))
        return address


def _server(handlers: Mapping[str, Handler], probes: Mapping[str, Handler], limits: Limits) -> Server:
    from extauthz.server.native import _native

    explainer: Callable[[Exception], tuple[int, str]] = explain
    return _native.Server(
        dict(handlers),
        dict(probes),
        explainer,
        message_bytes=limits.message_bytes,
        header_bytes=limits.header_bytes,
        streams=limits.streams,
        connections=limits.connections,
        in_flight=limits.in_flight,
        held_bytes=HELD_MESSAGES * max(limits.message_bytes, 1024 * 1024),
        preface_seconds=limits.preface_seconds,
        idle_seconds=limits.idle_seconds,
        call_seconds=CALL_SECONDS,
        age_seconds=limits.connection_age_seconds,
        age_grace_seconds=AGE_GRACE_SECONDS,
    )
