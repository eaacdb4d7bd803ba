"""One process that answers Check calls: policies, keys, a transport and a decision log, put together and steered.

What steers it, be it this process's own lifecycle or a parent of several workers, sees `Site`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from extauthz._version import __version__
from extauthz.server import signals, transports
from extauthz.server.checks import Checks
from extauthz.server.interference import keep_collections_short
from extauthz.server.listeners import Address
from extauthz.server.metrics import NO_LABELS, Snapshot
from extauthz.server.options import ServeOptions
from extauthz.server.policies import PolicySet, load_policies, report
from extauthz.server.process import ProcessStatistics
from extauthz.server.remote_keys import RemoteKeySets
from extauthz.server.transport import CHECK_METHOD, Transport

if TYPE_CHECKING:
    from extauthz.server.decision_log import DecisionLog
    from extauthz.server.observation import Observers
    from extauthz.server.tracing import Spans

_log = logging.getLogger(__name__)

RELOAD_WAIT_SECONDS = 1.0
"""How long a reload waits for the first fetch of a key set that is new in it, at most."""
LOOK_SECONDS = 0.1
"""How often a wait for key sets at the start is left to see whether it is still wanted."""
CLOSE_SECONDS = 2.0
"""How long the decision log and the tracer may take to tell of what was decided last."""


class Site(Protocol):
    """What answers calls, in one process or several; called by one thread at a time but for the read-only methods."""

    def load(self) -> str:
        """Read and compile the policies; returns what they are, in words. Raises PolicyError."""
        ...

    def open(self) -> Sequence[Address]:
        """Listen, answer, and say SERVING; returns where. Raises UsageError with nothing left listening."""
        ...

    def reload(self) -> str:
        """Replace the policies everywhere or nowhere; returns what is in force now, in words. Raises PolicyError."""
        ...

    def withdraw(self) -> None:
        """Say NOT_SERVING and go on answering."""
        ...

    def finish(self, seconds: float) -> bool:
        """Answer what is in flight, for at most `seconds`, and close everything; whether nothing was cut off."""
        ...

    def stop(self) -> None:
        """End at once."""
        ...

    def snapshot(self) -> Snapshot:
        """The metrics now."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What is loaded, as JSON: `policies`, `key_sets` and more. Never secrets."""
        ...

    def serving(self) -> bool:
        """Whether calls are answered and should be sent here."""
        ...

    def missing(self) -> Sequence[str]:
        """What keeps this site from deciding every request as its policies say; empty when all is there."""
        ...


class Service:
    """The site that is this process. `addresses` are its own; `share` lets other workers listen on the same ports."""

    def __init__(self, options: ServeOptions, addresses: Sequence[Address], *, worker: int = 0, share: bool = False):
        self._options = options
        self._worker = worker
        self._keys = RemoteKeySets(options.fetch)
        self._observers = _observers(options, worker)
        self._telling = _telling(self._observers)
        self._checks = Checks(self._telling)
        self._process = ProcessStatistics()
        self._policies: PolicySet | None = None
        self._prepared: PolicySet | None = None
        self._serving = False
        self._transport, choice = transports.make(
            options.transport,
            addresses,
            {CHECK_METHOD: self._checks.handle},
            options.limits,
            tls=options.tls,
            mode=options.mode,
            share=share,
        )
        if worker == 0:
            _log.info("transport %s: %s", choice.name, choice.reason)

    def load(self) -> str:
        """See `Site`."""
        self.prepare()
        return self.commit()

    def open(self) -> Sequence[Address]:
        """See `Site`."""
        self._wait_for_keys(self._options.jwks_wait)
        addresses = self._transport.bind()
        for observer in self._observers:
            observer.start()
        keep_collections_short()
        self._transport.start()
        self._transport.set_serving(True)
        self._serving = True
        return addresses

    def _wait_for_keys(self, seconds: float) -> None:
        """Wait for first fetches, unless a signal to end comes meanwhile, which is then obeyed without delay."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not signals.end_requested():
            if self._keys.wait(min(left, LOOK_SECONDS)):
                return

    def prepare(self) -> None:
        """Read and compile the policies without using them. Raises PolicyError."""
        try:
            self._prepared = load_policies(self._options, self._keys.source, self._policies)
        except BaseException:
            self._keys.discard()
            raise
        if self._policies is not None:
            # A rule with a new URL takes over with its keys, as in the mesh, which fetches before it pushes.
            self._keys.wait(min(self._options.jwks_wait, RELOAD_WAIT_SECONDS))

    def commit(self) -> str:
        """Use what was prepared; returns what is in force now, in words."""
        prepared, self._prepared = self._prepared, None
        assert prepared is not None
        if self._telling is not None:
            self._telling.follow(prepared.resources)
        self._checks.install(prepared.authorizer)
        self._policies = prepared
        self._keys.retain()
        return report(prepared, quietly=self._worker > 0)

    def discard(self) -> None:
        """Forget what was prepared: another worker could not use it."""
        self._prepared = None
        self._keys.discard()

    def reload(self) -> str:
        """See `Site`."""
        return self.load()

    def withdraw(self) -> None:
        """See `Site`."""
        self._serving = False
        self._transport.set_serving(False)

    def finish(self, seconds: float) -> bool:
        """See `Site`."""
        complete = self._transport.drain(seconds)
        self._close()
        return complete

    def stop(self) -> None:
        """See `Site`."""
        self._transport.stop()
        self._close()

    def snapshot(self) -> Snapshot:
        """See `Site`."""
        found = self._checks.snapshot()
        found.update(_transport_snapshot(self._transport))
        found.update(self._keys.snapshot())
        found.update(self._process.snapshot())
        found["build_info"] = {(__version__, self._transport.name): 1}
        if self._policies is not None:
            found["policies"] = {(kind,): count for kind, count in self._policies.kinds.items()}
            found["policy_loaded_timestamp_seconds"] = {NO_LABELS: self._policies.loaded_at}
        for observer in self._observers:
            found.update(observer.snapshot())
        return found

    def describe(self) -> Mapping[str, Any]:
        """See `Site`."""
        return {
            "policies": self._policies.describe() if self._policies else [],
            "loaded_at": self._policies.loaded_at if self._policies else None,
            "key_sets": self._keys.describe(),
            "transport": self._transport.name,
        }

    def serving(self) -> bool:
        """See `Site`."""
        return self._serving

    def missing(self) -> Sequence[str]:
        """See `Site`."""
        return self._keys.missing()

    def _close(self) -> None:
        self._keys.close()
        for observer in self._observers:
            observer.close(CLOSE_SECONDS)


def _observers(options: ServeOptions, worker: int) -> list[DecisionLog | Spans]:
    # Imported only where they are wanted: each costs start-up time, and one is an optional extra.
    observers: list[DecisionLog | Spans] = []
    if options.decision_log:
        from extauthz.server.decision_log import DecisionLog

        observers.append(DecisionLog(options.decision_log, worker))
    if options.otel:
        from extauthz.server.tracing import Spans

        observers.append(Spans())
    return observers


def _telling(observers: Sequence[DecisionLog | Spans]) -> Observers | None:
    if not observers:
        return None
    from extauthz.server.observation import Observers

    return Observers(observers)


def _transport_snapshot(transport: Transport) -> Snapshot:
    """A transport's statistics by the names of metrics; what a transport does not know is left out."""
    found: Snapshot = {}
    for name, value in transport.statistics().items():
        if name in _TRANSPORT_METRICS:
            found[_TRANSPORT_METRICS[name]] = {NO_LABELS: value}
        elif name.startswith(REFUSED):
            found.setdefault("grpc_refused", {})[(name.removeprefix(REFUSED),)] = value
    return found


REFUSED = "refused_total:"
_TRANSPORT_METRICS = {
    "in_flight": "grpc_in_flight",
    "connections": "grpc_connections",
    "connections_total": "grpc_connections_accepted",
    "calls_total": "grpc_calls",
    "resets_total": "grpc_resets",
    "received_bytes_total": "grpc_received_bytes",
    "sent_bytes_total": "grpc_sent_bytes",
}
