"""The remote key sets of this process: one fetcher for all of its policies, made when a rule first needs it.

Importing the fetcher brings an HTTP client and an event loop along, which a server without remote key sets never pays
for. Sources outlive the policies that asked for them, so that a reload keeps what did not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from extauthz.authn.fetch.options import FetchOptions
from extauthz.authn.keys import KeySource
from extauthz.istio.resources import JwtRule, RequestAuthentication, Resources
from extauthz.server.metrics import Snapshot

if TYPE_CHECKING:
    from extauthz.authn.fetch.fetcher import KeySetFetcher
    from extauthz.authn.fetch.state import KeySetState


class RemoteKeySets:
    """Gives the key sources of rules without inline keys, and tells how they are."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._fetcher: KeySetFetcher | None = None

    def source(self, rule: JwtRule, policy: RequestAuthentication, resources: Resources) -> KeySource:
        """The source of a rule's keys; the same object for the same keys. Raises UsageError for unusable options."""
        if self._fetcher is None:
            from extauthz.authn.fetch.fetcher import KeySetFetcher

            self._fetcher = KeySetFetcher(self._options)
        return self._fetcher.source(rule, policy, resources)

    def wait(self, seconds: float) -> bool:
        """Until every first fetch has ended, well or not, at most so long; whether they have."""
        return self._fetcher is None or self._fetcher.wait(seconds)

    def retain(self) -> None:
        """Forget the sources that the policies in force do not use."""
        if self._fetcher is not None:
            self._fetcher.retain()

    def discard(self) -> None:
        """Forget the sources that only policies asked for which are not used after all."""
        if self._fetcher is not None:
            self._fetcher.discard()

    def close(self) -> None:
        """Fetch no more."""
        if self._fetcher is not None:
            self._fetcher.close()

    def missing(self) -> Sequence[str]:
        """Which key sets are not there: tokens that need them are refused."""
        return [f"key set {state.uri}: {state.error}" for state in self._states() if not state.available]

    def snapshot(self) -> Snapshot:
        """The metrics of all key sets."""
        if self._fetcher is None:
            return {}
        from extauthz.authn.fetch.state import by_uri

        found: Snapshot = {}
        for figures in by_uri(self._states()):
            found.setdefault("jwks_keys", {})[figures.uri,] = figures.keys
            if figures.age is not None:
                found.setdefault("jwks_age_seconds", {})[figures.uri,] = figures.age
            fetches = found.setdefault("jwks_fetch", {})
            fetches.update({(figures.uri, result): count for result, count in figures.results.items()})
        return found

    def describe(self) -> list[dict[str, Any]]:
        """For people: every key set with its age, key ids and last error. Never a key."""
        return [asdict(state) for state in self._states()]

    def _states(self) -> Sequence[KeySetState]:
        return self._fetcher.states() if self._fetcher is not None else ()
