"""Payloads with their weights, and the order in which they are sent.

The order is random and reproducible by a seed; the same arrivals with the same seed send the same payloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from extauthz.loadtest.outcomes import Floats
from extauthz.loadtest.sender import Numbers


@dataclass(frozen=True, slots=True)
class Corpus:
    """Payloads as a sender takes them, with their weights."""

    payloads: tuple[bytes, ...] = field(repr=False)
    weights: Floats = field(repr=False)

    def drawing(self, seed: Sequence[int]) -> Drawing:
        """A stream of payload numbers; the same for the same seed."""
        return Drawing(self.weights, seed)


class Drawing:
    """Draws payloads by their weights."""

    def __init__(self, weights: Floats, seed: Sequence[int]) -> None:
        self._ends = np.cumsum(weights)
        self._ends /= self._ends[-1]
        self._random = np.random.default_rng(list(seed))

    def draw(self, count: int) -> Numbers:
        """The numbers of the next `count` payloads."""
        if len(self._ends) == 1:
            return np.zeros(count, np.uint32)
        return np.searchsorted(self._ends, self._random.random(count), side="right").astype(np.uint32)
