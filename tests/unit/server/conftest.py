"""Transports in this process, and clients for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from extauthz.server import native, transports
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, DEFAULT_LIMITS, Handler, Limits, Transport


@pytest.fixture(params=["grpcio", "native"])
def transport_name(request: pytest.FixtureRequest) -> str:
    """Each transport in turn; the native one is passed over where it was not built."""
    if request.param == "native" and not (availability := native.available())[0]:
        pytest.skip(f"the native transport is not available: {availability[1]}")
    return str(request.param)


class Running:
    """A transport that answers, and a channel to it."""

    def __init__(self, transport: Transport, addresses: list[Address], stack: ExitStack) -> None:
        self.transport = transport
        self.addresses = addresses
        self._stack = stack
        self.channel = self.open_channel()

    @property
    def target(self) -> str:
        return str(self.addresses[0])

    def open_channel(self, *options: tuple[str, Any]) -> grpc.Channel:
        """A connection of its own."""
        own = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), *options)
        return self._stack.enter_context(grpc.insecure_channel(self.target, options=own))

    def call(self, message: bytes = b"", *, method: str = CHECK_METHOD, seconds: float = 10.0, **more: Any) -> bytes:
        """One call; raises grpc.RpcError."""
        return bytes(self.channel.unary_unary(method)(message, timeout=seconds, wait_for_ready=True, **more))


StartTransport = Callable[..., Running]


@pytest.fixture
def start(transport_name: str) -> Iterator[StartTransport]:
    """Starts transports of one kind; they are stopped at the end."""
    with ExitStack() as stack:

        def start(
            handlers: Handler | Mapping[str, Handler],
            limits: Limits = DEFAULT_LIMITS,
            *,
            listen: str = "",
            serving: bool = True,
        ) -> Running:
            by_path = handlers if isinstance(handlers, Mapping) else {CHECK_METHOD: handlers}
            address = Address(path=listen) if listen else Address(host="127.0.0.1")
            transport, _ = transports.make(transport_name, [address], by_path, limits)
            stack.callback(transport.stop)
            addresses = list(transport.bind())
            transport.start()
            transport.set_serving(serving)
            return Running(transport, addresses, stack)

        yield start


def status_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    """The status and text that a call ended with."""
    return error.value.code(), error.value.details()
