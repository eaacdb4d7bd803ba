"""One remote key set: what requests read of it, and what its fetches have come to.

`key_set` is the only thing on the way of a Check call, a plain attribute that the fetcher's thread replaces. Everything
else belongs to that thread; others read it for states only.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from extauthz.authn.fetch.disk import fingerprint_of
from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.authn.fetch.routes import Route
from extauthz.authn.fetch.schedule import Intervals, Schedule
from extauthz.authn.fetch.state import KeySetState
from extauthz.authn.fetch.url import Url
from extauthz.authn.keys import UNAVAILABLE, KeySet, KeySetError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fetched and how: two rules with equal plans share one source.

    `issuer` is set when `url` is a discovery document, which has to be of that issuer. `scope` is the namespace whose
    view of the mesh counts (see `Routes.scope`), `route` how `url` itself is reached, `timeout` the seconds of a fetch.
    """

    url: Url
    issuer: str
    scope: str
    route: Route
    timeout: float

    @property
    def fingerprint(self) -> str:
        """A name for what is fetched, the same after a restart."""
        return fingerprint_of(self.url.scheme, self.url.authority, self.url.target, self.issuer, self.scope)


class RemoteKeySet:
    """A `KeySource` whose keys come from a URL."""

    def __init__(self, plan: Plan, intervals: Intervals, find_route: Callable[[Url], Route]) -> None:
        self.key_set: KeySet = UNAVAILABLE
        self.plan = plan
        self.find_route = find_route
        self.issuers: tuple[str, ...] = ()
        self.schedule = Schedule(intervals, time.monotonic())
        self.wake = asyncio.Event()
        self.first_fetch_ended = threading.Event()
        self.early = False
        self.etag = ""
        self.key_set_url = ""
        self.error = ""
        self.results: Counter[str] = Counter()
        self._content = b""
        self._confirmed = 0.0
        self._missing_key = False
        self._notify: Callable[[RemoteKeySet], None] | None = None

    def on_missing_key(self, notify: Callable[[RemoteKeySet], None]) -> None:
        """Whom to tell that a token named a key that the set lacks; `notify` is called from threads of requests."""
        self._notify = notify

    def note_missing_key(self) -> None:
        """A token named a key that the set lacks. Returns at once; only the first call since a fetch does anything."""
        if not self._missing_key and self._notify is not None:
            self._missing_key = True
            self._notify(self)

    def take(self, body: str, url: str, etag: str, lifetime: float | None, now: float) -> bool:
        """A fetch brought `body`. Gives whether it changed anything; the same content keeps the same `KeySet`.

        Raises FetchFailure when there is no usable key in it: the set in use stays.
        """
        content = _digest(body)
        changed = content != self._content or self.key_set is UNAVAILABLE
        if changed:
            self.key_set, self._content = _parse(body), content
        self.key_set_url, self.etag = url, etag
        self.confirm(lifetime, now)
        return changed

    def confirm(self, lifetime: float | None, now: float) -> None:
        """What is in use is what the issuer has."""
        self.schedule.succeeded(now, lifetime)
        self.results["success"] += 1
        self._confirmed = now
        self._settle("")

    def restore(self, body: str, url: str, etag: str, age: float, now: float) -> None:
        """A set from the disk is in use until the issuer is heard. Raises FetchFailure when it is of no use."""
        self.key_set, self._content = _parse(body), _digest(body)
        self.key_set_url, self.etag = url, etag
        self.schedule.restored(now, age)
        self._confirmed = now - age

    def fail(self, failure: FetchFailure, now: float, *, for_good: bool = False) -> None:
        """A fetch failed; the set in use stays. `for_good`: nothing changes until the policies do."""
        self.results[failure.cause.value] += 1
        if for_good:
            self.schedule.never()
        else:
            self.schedule.failed(now, failure.retry_after)
        self._settle(str(failure))

    def drop_if_stale(self, now: float) -> None:
        """Stop using a set that nobody has confirmed for too long."""
        if self.key_set is not UNAVAILABLE and self.schedule.stale(now):
            self.key_set, self._content, self.etag = UNAVAILABLE, b"", ""
            self.schedule.stale_at = inf
            _log.error("key set %s: too old to be used any longer; its tokens are refused", self.plan.url.shown)

    def state(self, now: float) -> KeySetState:
        """What is told of it."""
        key_set = self.key_set
        available = key_set is not UNAVAILABLE
        due = self.schedule.due
        return KeySetState(
            uri=self.plan.url.shown,
            issuers=self.issuers,
            available=available,
            age=now - self._confirmed if available else None,
            key_ids=tuple(key.kid for key in key_set.keys) if available else (),
            error=self.error,
            failures=self.schedule.failures,
            results=dict(self.results),
            next_fetch=max(due - now, 0.0) if due < inf else None,
            via=self.plan.route.via,
        )

    def _settle(self, error: str) -> None:
        """The end of a fetch: one log line where the state has changed."""
        first = not self.first_fetch_ended.is_set()
        if error and error != self.error:
            kept = "the last good set stays in use" if self.key_set is not UNAVAILABLE else "its tokens are refused"
            _log.warning("key set %s: %s; %s", self.plan.url.shown, error, kept)
        elif not error and (first or self.error):
            _log.info("key set %s: %d keys", self.plan.url.shown, len(self.key_set.keys))
        self.error = error
        self._missing_key = False
        self.first_fetch_ended.set()


def _parse(body: str) -> KeySet:
    try:
        return KeySet.parse(body)
    except KeySetError as error:
        raise FetchFailure(Cause.CONTENT, f"no usable key set: {error.reason}") from None


def _digest(body: str) -> bytes:
    return hashlib.sha256(body.encode()).digest()
