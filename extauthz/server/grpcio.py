"""The reference transport, on grpcio: TLS and mutual TLS, Unix sockets, health, reflection.

Everything that Envoy does on an idle or a draining connection is allowed for here: its pings at any rate, bodies sent
along, a graceful end of old connections. grpcio binds by itself, so addresses are tried first with `listeners`, whose
refusals explain themselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import grpc

from extauthz.errors import UsageError
from extauthz.server import listeners
from extauthz.server.grpcio_methods import CountingPool, Methods
from extauthz.server.listeners import Address
from extauthz.server.transport import DEFAULT_LIMITS, Handler, Limits, TlsOptions

THREADS = 32
"""Threads that run handlers, started as needed. One works at a time; the others wait for messages of slow senders."""

FLUSH_SECONDS = 0.5
"""How long the last answers may take to leave once every handler has returned, before open watches are cut."""

_MAX_INT = 2**31 - 1


class GrpcioTransport:
    """See `transport.Transport`. `connections` and timeouts of the preface are beyond what grpcio can limit."""

    name = "grpcio"

    def __init__(
        self,
        addresses: Sequence[Address],
        handlers: Mapping[str, Handler],
        limits: Limits = DEFAULT_LIMITS,
        *,
        tls: TlsOptions | None = None,
        mode: int = 0o660,
        share: bool = False,
    ) -> None:
        """`mode` is that of Unix sockets; `share` lets other processes listen on the same ports (SO_REUSEPORT).

        Raises UsageError when the certificate files cannot be used.
        """
        self._addresses = addresses
        self._mode = mode
        self._share = share
        self._sockets: list[tuple[str, int]] = []
        self._credentials, admit = _tls(tls)
        self._pool = CountingPool(THREADS)
        self._methods = Methods(dict(handlers), pool=self._pool, in_flight=limits.in_flight, admit=admit)
        self._server = grpc.server(self._pool, handlers=[self._methods], options=_options(limits, share))

    def bind(self) -> Sequence[Address]:
        try:
            return [self._bind(address) for address in self._addresses]
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        self._server.start()

    def set_serving(self, serving: bool) -> None:
        self._methods.health.set_serving(serving)

    def drain(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        ended = self._server.stop(seconds)
        while not ended.wait(0.02):
            if time.monotonic() >= deadline:
                break
            if self._pool.in_flight == 0:
                # What is left are answers on their way out, and health watches, which never end by themselves.
                ended.wait(min(FLUSH_SECONDS, max(0.0, deadline - time.monotonic())))
                break
        # Calls have ended before their threads have noted it; only from the deadline on gRPC ends them itself.
        complete = self._pool.in_flight == 0 or (ended.is_set() and time.monotonic() < deadline)
        self.stop()
        return complete

    def stop(self) -> None:
        self._server.stop(None).wait(1.0)
        self._pool.shutdown(wait=False)
        for path, inode in self._sockets:
            listeners.remove_unix_path(path, inode)
        self._sockets.clear()

    def statistics(self) -> Mapping[str, int]:
        return {
            "in_flight": self._pool.in_flight,
            "calls_total": self._pool.begun + self._methods.shed,
            "refused_total:in_flight": self._methods.shed,
        }

    def _bind(self, address: Address) -> Address:
        # grpcio says no more than that it failed, and takes a live server's Unix socket away: try it first.
        with listeners.bind(address, mode=self._mode, share=self._share) as tried:
            numeric = listeners.bound(tried)
        if address.is_unix:
            os.unlink(address.path)
            with listeners.creating_with_mode(self._mode):
                self._add_port(address, f"unix:{address.path}")
            self._sockets.append((address.path, os.lstat(address.path).st_ino))
            return address
        port = self._add_port(address, str(replace(numeric, port=address.port)))
        return replace(numeric, port=port)

    def _add_port(self, address: Address, target: str) -> int:
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(target)
            return self._server.add_secure_port(target, self._credentials)
        except RuntimeError as error:
            raise UsageError(f"--listen {address}: {error}") from None


def _tls(
    options: TlsOptions | None,
) -> tuple[grpc.ServerCredentials | None, Callable[[grpc.ServicerContext], None] | None]:
    if options is None:
        return None, None
    # Only where TLS is asked for: importing it costs start-up time.
    from extauthz.server import tls

    return tls.server_credentials(options), tls.admission(options)


def _options(limits: Limits, share: bool) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", limits.streams),
        # Above the soft limit grpcio refuses some calls at random, above the hard one all.
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        ("grpc.so_reuseport", int(share)),
        # Envoy pings an idle connection as often as it was told to; the defaults answer that with GOAWAY.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.server_handshake_timeout_ms", int(limits.preface_seconds * 1000)),
    ]
    if limits.in_flight:
        # Calls also wait in gRPC's core, ahead of the one thread that takes them out: the same limit holds there.
        options.append(("grpc.server.max_pending_requests", limits.in_flight))
        options.append(("grpc.server.max_pending_requests_hard_limit", limits.in_flight))
    if limits.idle_seconds:
        options.append(("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)))
    if limits.connection_age_seconds:
        options.append(("grpc.max_connection_age_ms", int(limits.connection_age_seconds * 1000)))
        options.append(("grpc.max_connection_age_grace_ms", _MAX_INT))
    return options
