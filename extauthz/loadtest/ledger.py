"""What the portable senders share: arrivals that are waiting, and records of calls that have ended.

The thread that offers and collects, and the sender's own thread, may both use a ledger at any time: each operation is
one operation on a deque or list, which the interpreter makes indivisible.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic_ns

import numpy as np

from extauthz.loadtest.outcomes import RECORD, Integers, Records
from extauthz.loadtest.sender import CAPACITY, Numbers

Arrival = tuple[int, int]
"""When a call is due (CLOCK_MONOTONIC ns), and the number of its payload."""


class Ledger:
    """Arrivals in, records out."""

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._records: deque[tuple[int, int, int, int, int, int]] = deque()
        self._withdrawing = threading.Lock()
        self.withdrawn = 0
        self.peak_in_flight = 0
        self._taken = 0
        self._collected = 0

    def offer(self, due: Integers, payloads: Numbers) -> int:
        """Add arrivals; how many fit."""
        count = max(0, min(len(due), CAPACITY - len(self._arrivals)))
        self._arrivals.extend(zip(due[:count].tolist(), payloads[:count].tolist(), strict=True))
        return count

    def next_due(self) -> int | None:
        """When the next call is due; None when none is known."""
        try:
            return self._arrivals[0][0]
        except IndexError:
            return None

    def take(self, now: int) -> Arrival | None:
        """The next arrival if it is due by now; it is then in flight."""
        with self._withdrawing:
            due = self.next_due()
            if due is None or due > now:
                return None
            self._taken += 1
            in_flight = self._taken - self._collected - len(self._records)
            self.peak_in_flight = max(self.peak_in_flight, in_flight)
            return self._arrivals.popleft()

    def withdraw(self) -> None:
        """Forget what is not due yet."""
        now = monotonic_ns()
        with self._withdrawing:
            while self._arrivals and self._arrivals[-1][0] > now:
                self._arrivals.pop()
                self.withdrawn += 1

    def write(self, due: int, taken: int, sent: int, done: int, outcome: int, payload: int) -> None:
        """Record one ended call."""
        self._records.append((due, taken, sent, done, outcome, payload))

    def collect(self) -> Records:
        """The records since the last time."""
        count = len(self._records)
        found = [self._records.popleft() for _ in range(count)]
        self._collected += count
        return np.array(found, RECORD)
