"""Makes the transport that was chosen; imports no other, since each costs start-up time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from extauthz.server import native
from extauthz.server.listeners import Address
from extauthz.server.transport import Choice, Handler, Limits, TlsOptions, Transport, choose

IN_FLIGHT = {"grpcio": 512, "native": 8192}
"""Calls that wait together unless the operator says otherwise: about 100 ms of work, half of Envoy's default timeout.

What waits longer is given up by Envoy and answered for nothing. Measured at three times the capacity (open loop):
grpcio went on deciding at full rate, and answers took 60 ms in the mean instead of 280 ms without a limit.
"""


def make(
    wanted: str,
    addresses: Sequence[Address],
    handlers: Mapping[str, Handler],
    limits: Limits,
    *,
    tls: TlsOptions | None = None,
    mode: int = 0o660,
    share: bool = False,
) -> tuple[Transport, Choice]:
    """The transport for `--transport WANTED` and why it is that one. Raises UsageError where it cannot be had."""
    choice = choose(wanted, tls=tls is not None, native=native.available())
    limits = replace(limits, in_flight=limits.in_flight or IN_FLIGHT[choice.name])
    if choice.name == "native":
        return native.NativeTransport(addresses, handlers, limits, mode=mode, share=share), choice
    # gRPC's core writes to stderr by itself, a line for each failed TLS handshake: a peer could fill a disk with it.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from extauthz.server.grpcio import GrpcioTransport

    return GrpcioTransport(addresses, handlers, limits, tls=tls, mode=mode, share=share), choice
