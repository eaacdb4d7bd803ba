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

from extauthz.authn.fetch.content import read_key_set
from extauthz.authn.fetch.disk import fingerprint_of
from extauthz.authn.fetch.failure import FetchFailure
from extauthz.authn.fetch.routes import Route
from extauthz.authn.fetch.schedule import Intervals, Schedule
from extauthz.authn.fetch.state import KeySetState
from extauthz.authn.fetch.url import Url
from extauthz.authn.keys import UNAVAILABLE, KeySet

_log = logging.getLogger(__name__)

MAX_LOGGED_KEYS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fetched and how: two rules with equal plans share one source.

    `issuer` is set when `url` is a discovery document, which has to be of that issuer. `scope` is the namespace whose
    view of the mesh counts, blank where it is every namespace's; `route` is how `url` itself is reached.
    """

    url: Url
    issuer: str
    scope: str
    route: Route

    @property
    def fingerprint(self) -> str:
        """A name for what is fetched, whichever way: the same after a restart and after a change of the route."""
        return fingerprint_of(self.url.scheme, self.url.authority, self.url.target, self.issuer, self.scope)


class RemoteKeySet:
    """A `KeySource` whose keys come from a URL.

    `timeout` (seconds of a fetch) and `issuers` are those of the rules that use it, the longest and all.
    """

    def __init__(self, plan: Plan, intervals: Intervals, find_route: Callable[[Url], Route]) -> None:
        self.key_set: KeySet = UNAVAILABLE
        self.plan = plan
        self.find_route = find_route
        self.timeout = 0.0
        self.issuers: tuple[str, ...] = ()
        self.schedule = Schedule(intervals, time.monotonic())
        self.wake = asyncio.Event()
        self.first_fetch_ended = threading.Event()
        self.early = False
        self.etag = ""
        self.key_set_url = ""
        self.error = ""
        self.disk_problem = ""
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

    def used_by(self, issuer: str, timeout: float, *, anew: bool) -> None:
        """A rule uses it; `anew` says that this is the first one of the policies that are being loaded."""
        self.timeout = timeout if anew else max(self.timeout, timeout)
        known = () if anew else self.issuers
        self.issuers = known if not issuer or issuer in known else (*known, issuer)

    def take(self, body: bytes, url: str, etag: str, lifetime: float | None, now: float) -> None:
        """A fetch brought `body`. The same content keeps the same `KeySet`, and so what was verified with it.

        Raises FetchFailure when there is no usable key in it: the set in use stays.
        """
        content = _digest(body)
        changed = content != self._content or self.key_set is UNAVAILABLE
        if changed:
            self.key_set, self._content = read_key_set(body), content
        self.key_set_url, self.etag = url, etag
        self.confirm(lifetime, now, changed=changed)

    def confirm(self, lifetime: float | None, now: float, *, changed: bool = False) -> None:
        """What is in use is what the issuer has."""
        self.schedule.succeeded(now, lifetime)
        self.results["success"] += 1
        self._confirmed = now
        self._settle("", changed=changed)

    def restore(self, body: bytes, url: str, etag: str, age: float, now: float) -> None:
        """A set from the disk is in use until the issuer is heard. Raises FetchFailure when it is of no use."""
        self.key_set, self._content = read_key_set(body), _digest(body)
        self.key_set_url, self.etag = url, etag
        self.schedule.restored(now, age)
        self._confirmed = now - age

    def inherit(self, before: RemoteKeySet, now: float) -> None:
        """The same set was reached another way before: what that brought is in use until this way has brought it."""
        if before.key_set is not UNAVAILABLE:
            self.key_set, self._content, self._confirmed = before.key_set, before._content, before._confirmed
            self.schedule.restored(now, now - before._confirmed)

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

    def _settle(self, error: str, *, changed: bool = False) -> None:
        """The end of a fetch: one log line where the state has changed."""
        if error and error != self.error:
            kept = "the last good set stays in use" if self.key_set is not UNAVAILABLE else "its tokens are refused"
            _log.warning("key set %s: %s; %s", self.plan.url.shown, error, kept)
        elif not error and (changed or self.error):
            _log.info("key set %s: %s", self.plan.url.shown, _described(self.key_set))
        self.error = error
        self._missing_key = False
        self.first_fetch_ended.set()


def _described(key_set: KeySet) -> str:
    # Key ids are the issuer's text: bounded, and without anything that a terminal would act on.
    kids = [ascii(key.kid)[1:-1][:80] if key.kid else "(no kid)" for key in key_set.keys[:MAX_LOGGED_KEYS]]
    more = len(key_set.keys) - len(kids)
    passed_over = f"; {len(key_set.skipped)} passed over" if key_set.skipped else ""
    return f"{len(key_set.keys)} keys: {', '.join(kids)}{f' and {more} more' if more else ''}{passed_over}"


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
