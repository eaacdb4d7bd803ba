"""A server that allows everything without looking at it: the floor that measurements are held against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from extauthz.checkapi.write import write_decision
from extauthz.decision import Decision
from extauthz.server import listeners, signals, transports
from extauthz.server.drain import drain
from extauthz.server.listeners import Address
from extauthz.server.logs import Log
from extauthz.server.transport import CHECK_METHOD, DEFAULT_LIMITS, Limits, Transport

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NullOptions:
    """The options of `extauthz null`; see `options.ServeOptions`."""

    listen: tuple[str, ...] = (listeners.DEFAULT_LISTEN,)
    transport: str = "auto"
    limits: Limits = DEFAULT_LIMITS
    drain: float = 0.0


def serve_null(options: NullOptions) -> int:
    """Run until a signal ends it; returns the exit status. Raises UsageError when it cannot listen."""
    addresses = [listeners.for_worker(listeners.parse(text), 0) for text in options.listen]
    log = Log()
    log.start()
    try:
        with signals.held():
            answer = write_decision(Decision(True))
            transport, choice = transports.make(
                options.transport, addresses, {CHECK_METHOD: lambda message: answer}, options.limits
            )
            _log.warning("EVERY request is ALLOWED and no policy is read: this is for measurements only")
            _log.info("transport %s: %s", choice.name, choice.reason)
            return _run(transport, options.drain, log)
    finally:
        log.close()


def _run(transport: Transport, drain_seconds: float, log: Log) -> int:
    bound: Sequence[Address] = transport.bind()
    transport.start()
    transport.set_serving(True)
    log.announce_ready(bound)
    while signals.next_signal() not in signals.END:
        pass
    return drain(_Null(transport), drain_seconds)


class _Null:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def withdraw(self) -> None:
        self._transport.set_serving(False)

    def finish(self, seconds: float) -> bool:
        complete = self._transport.drain(seconds)
        self._transport.stop()
        return complete

    def stop(self) -> None:
        self._transport.stop()
