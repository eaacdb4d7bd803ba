"""When a key set is fetched next, and until when it may be used. Pure: time comes in, nothing is looked up or logged.

Times are seconds on one clock that never goes back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import inf

from extauthz.authn.fetch.options import FetchOptions

REFRESH_SPREAD = 0.1
"""Refreshes come up to this part earlier, so that the replicas of a deployment drift apart."""
RETRY_SPREAD = 0.5
"""Retries come up to this part earlier."""
LONGEST_LIFETIME = 10 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Intervals:
    """The times of `FetchOptions`, made consistent: a deliberately short refresh shortens the others."""

    refresh: float
    refresh_min: float
    retry_first: float
    retry_max: float
    max_stale: float

    @classmethod
    def of(cls, options: FetchOptions) -> Intervals:
        """The intervals that `options` ask for."""
        retry_max = min(options.retry_max, options.refresh)
        return cls(
            refresh=options.refresh,
            refresh_min=min(options.refresh_min, options.refresh),
            retry_first=min(options.retry_first, retry_max),
            retry_max=retry_max,
            max_stale=options.max_stale,
        )


class Schedule:
    """The state of one key set's fetching. Due at once when made.

    `due` is the time of the next fetch and `stale_at` when the set may no longer be used (infinite without a set);
    `failures` counts those since the last success. `spread` gives numbers from 0 to 1.
    """

    __slots__ = ("_early_at", "_intervals", "_spread", "due", "failures", "stale_at")

    def __init__(self, intervals: Intervals, now: float, spread: Callable[[], float] = random.random) -> None:
        self._intervals = intervals
        self._spread = spread
        self._early_at = now
        self.due = now
        self.stale_at = inf
        self.failures = 0

    def restored(self, now: float, age: float) -> None:
        """A set that was fetched `age` seconds ago is in use again. It is fetched anew at once all the same."""
        self.stale_at = now - age + self._intervals.max_stale

    def succeeded(self, now: float, lifetime: float | None) -> None:
        """A fetch brought a set, or confirmed the one in use; `lifetime` is what the answer said, if it did."""
        times = self._intervals
        wait = times.refresh if lifetime is None else min(times.refresh, max(lifetime, times.refresh_min))
        self.due = now + max(wait * (1 - REFRESH_SPREAD * self._spread()), times.refresh_min)
        self.stale_at = now + times.max_stale
        self.failures = 0

    def failed(self, now: float, retry_after: float = 0.0) -> None:
        """A fetch failed; `retry_after` is what the server asked for, 0 for nothing."""
        times = self._intervals
        doubled = times.retry_first * 2.0 ** min(self.failures, 30)
        wait = min(doubled, times.retry_max) * (1 - RETRY_SPREAD * self._spread())
        self.due = now + max(wait, min(retry_after, times.refresh))
        self.failures += 1

    def never(self) -> None:
        """There is nothing to try: no fetch is due any more."""
        self.due = inf
        self.failures += 1

    def key_missing(self, now: float) -> None:
        """A token has a key id that the set lacks: fetch early, at most once per minimum interval."""
        if self.due < inf:
            self.due = min(self.due, max(now, self._early_at))

    def early_fetch_begins(self, now: float) -> None:
        """The fetch that begins now was asked for by `key_missing`: the next such one has to wait."""
        self._early_at = now + self._intervals.refresh_min

    def stale(self, now: float) -> bool:
        """Whether the set in use is too old."""
        return now >= self.stale_at


def cache_lifetime(headers: Mapping[str, str], now: float) -> float | None:
    """How long an answer may be used (RFC 9111 section 4.2.1), in seconds from now; None when it does not say.

    `headers` have names in lower case; `now` is Unix time. `no-cache` and `no-store` are 0: ask again soon.
    """
    directives: dict[str, str] = {}
    for part in headers.get("cache-control", "").split(","):
        name, _, value = part.partition("=")
        directives.setdefault(name.strip().lower(), value.strip().strip('"'))
    if "no-cache" in directives or "no-store" in directives:
        return 0.0
    # What cannot be read counts as stale. `s-maxage` is for caches that serve others.
    if "max-age" in directives:
        lifetime = _seconds(directives["max-age"])
    elif "expires" in headers:
        expires, date = _unix_time(headers["expires"]), _unix_time(headers.get("date", ""))
        lifetime = 0.0 if expires is None else expires - (now if date is None else date)
    else:
        return None
    return min(max(lifetime - _seconds(headers.get("age", "").strip()), 0.0), LONGEST_LIFETIME)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """The seconds that `Retry-After` asks to wait (RFC 9110 section 10.2.3), 0 when it does not."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return 0.0
    at = _unix_time(text)
    return _seconds(text) if at is None else max(at - now, 0.0)


def _seconds(text: str) -> float:
    return float(text[:12]) if text.isascii() and text.isdecimal() else 0.0


def _unix_time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
