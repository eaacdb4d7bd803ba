"""A decision's time as a ratio to a fixed piece of Python work, which a busy or slow machine leaves as it is.

The lowest of many short, alternating runs of both is taken: an interruption makes some of them longer and none shorter.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter

ROUNDS = 400
CALLS = 50
"""In each round: about a tenth of a millisecond, far less than a process is left to run undisturbed."""


class _Entry:
    __slots__ = ("begin", "end", "name")

    def __init__(self, number: int) -> None:
        self.begin = 0.0
        self.end = 1e9 + number
        self.name = f"entry/{number}"

    def holds(self, now: float) -> bool:
        return self.begin <= now < self.end


class Reference:
    """The work: look-ups, attributes, comparisons, calls and short texts, as a decision is made of them."""

    def __init__(self) -> None:
        self._entries = {f"authorization: {number}": _Entry(number) for number in range(200)}
        self._keys = list(self._entries)[50:60]

    def __call__(self) -> int:
        found = 0
        entries = self._entries
        for key in self._keys:
            entry = entries.get(key)
            if entry is not None and entry.holds(5e8) and entry.name.startswith("entry/"):
                found += len(entry.name.partition("/")[2])
        return found


def ratio(call: Callable[[], object], against: Callable[[], object] | None = None, rounds: int = ROUNDS) -> float:
    """How many times as long as the reference's work (or another call) one call takes."""
    reference = against or Reference()
    collecting = gc.isenabled()
    gc.disable()
    try:
        pairs = [(_run(call), _run(reference)) for _ in range(rounds)]
    finally:
        if collecting:
            gc.enable()
    return min(one for one, _ in pairs) / min(other for _, other in pairs)


def _run(call: Callable[[], object]) -> float:
    start = perf_counter()
    for _ in range(CALLS):
        call()
    return perf_counter() - start
