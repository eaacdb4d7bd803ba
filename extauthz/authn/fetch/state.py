"""What is told of remote key sets: to `/policies`, to metrics, to people. Never a key, a credential or a body."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeySetState:
    """One remote key set at one moment.

    - `uri`: the jwksUri, or the discovery document, without credentials; `issuers` are the rules' that use it.
    - `available`: whether there is a set to verify with; without one every token is refused.
    - `age`: seconds since the set in use was fetched or confirmed, None without one.
    - `key_ids`: of the keys in use, blank for a key without; their number is that of the keys.
    - `error`: why the last fetch failed, blank after a success; `failures`: how many since then.
    - `results`: fetches by result, `success` or a `failure.Cause`, since the source was made.
    - `next_fetch`: seconds until the next one, None when there is nothing to try.
    - `via`: the ServiceEntry and DestinationRule that are followed.
    """

    uri: str
    issuers: tuple[str, ...]
    available: bool
    age: float | None
    key_ids: tuple[str, ...]
    error: str
    failures: int
    results: Mapping[str, int]
    next_fetch: float | None
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UriFigures:
    """The figures of all sources of one URI, as metrics have them. `age` is the greatest, None without a set."""

    uri: str
    age: float | None
    keys: int
    results: Mapping[str, int]


def by_uri(states: Iterable[KeySetState]) -> tuple[UriFigures, ...]:
    """The figures for metrics: one entry a URI, however many ways of reaching it are in use."""
    grouped: dict[str, list[KeySetState]] = {}
    for state in states:
        grouped.setdefault(state.uri, []).append(state)
    return tuple(_figures(uri, group) for uri, group in grouped.items())


def _figures(uri: str, group: list[KeySetState]) -> UriFigures:
    results: Counter[str] = Counter()
    for state in group:
        results.update(state.results)
    ages = [state.age for state in group if state.age is not None]
    return UriFigures(uri, max(ages, default=None), sum(len(state.key_ids) for state in group), results)
