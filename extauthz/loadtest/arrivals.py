"""When calls are due: pure schedules, laid down before anything is sent and not moved by any answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from extauthz.errors import UsageError
from extauthz.loadtest.outcomes import Integers

NANOSECONDS = 1_000_000_000

_BLOCK = 4096
_MOST_STEPS = 1000


class ArrivalKind(StrEnum):
    """`constant`: equal gaps. `poisson`: exponential gaps, as calls of many independent clients come."""

    CONSTANT = "constant"
    POISSON = "poisson"


def parse_rates(text: str) -> tuple[float, ...]:
    """Read `--rate`: one value, a list `500,1000`, or a ramp `500..8000/8` (8 rates from 500 to 8000, evenly spaced).

    A list may hold ramps. Raises UsageError.
    """
    rates: list[float] = []
    for part in text.split(","):
        try:
            rates.extend(_parse_part(part.strip()))
        except ValueError:
            raise UsageError(
                f"--rate {text!r}: write calls per second (1000), a list (500,1000), or a ramp (500..8000/8)"
            ) from None
    if not all(0 < rate < float("inf") for rate in rates):
        raise UsageError(f"--rate {text!r}: a rate must be more than 0")
    return tuple(rates)


def _parse_part(part: str) -> list[float]:
    first, dots, rest = part.partition("..")
    if not dots:
        return [float(part)]
    last, slash, steps = rest.partition("/")
    count = int(steps) if slash else 2
    if not 2 <= count <= _MOST_STEPS:
        raise ValueError(part)
    low, high = float(first), float(last)
    return [round(low + (high - low) * step / (count - 1), 3) for step in range(count)]


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the arrivals one of several workers sends: number `worker` (from 0) of `workers`."""

    worker: int = 0
    workers: int = 1


ALL = Share()


class Arrivals:
    """The arrivals of one worker over `seconds` at `rate` calls per second of all workers together.

    Constant arrivals of all workers interleave to one constant stream; Poisson streams add up to one of the whole rate.
    `seed` (Poisson) gives the same stream again.
    """

    def __init__(self, kind: ArrivalKind, rate: float, seconds: float, share: Share = ALL, seed: int = 0) -> None:
        self._rate = rate
        self._share = share
        self._end = seconds * NANOSECONDS
        self._random = np.random.default_rng([seed, share.worker]) if kind is ArrivalKind.POISSON else None
        self._number = share.worker
        self._ahead = np.empty(0)
        self.exhausted = False

    def until(self, offset: float) -> Integers:
        """The next arrivals, up to `offset` ns from the start, as offsets in ns; `exhausted` says when none follow."""
        limit = min(offset, self._end)
        times = self._constant(limit) if self._random is None else self._poisson(limit)
        self.exhausted = limit >= self._end
        return times.astype(np.int64)

    def _constant(self, limit: float) -> np.ndarray:
        gap = NANOSECONDS / self._rate
        # The first arrival that is not before the limit; a hair's breadth keeps 2.0000000001 from counting as 3.
        end = max(int(np.ceil(limit / gap - 1e-6)), self._number)
        numbers = np.arange(self._number, end, self._share.workers)
        self._number += len(numbers) * self._share.workers
        return numbers * gap

    def _poisson(self, limit: float) -> np.ndarray:
        assert self._random is not None
        gap = NANOSECONDS * self._share.workers / self._rate
        last = self._ahead[-1] if len(self._ahead) else 0.0
        blocks = [self._ahead]
        while last < limit:
            block = last + np.cumsum(self._random.exponential(gap, _BLOCK))
            blocks.append(block)
            last = block[-1]
        times = np.concatenate(blocks)
        taken = int(np.searchsorted(times, limit))
        self._ahead = times[taken:]
        return times[:taken]
