"""The seam between kinds of hostile input and the runner that counts what they do."""

from __future__ import annotations

import random
from typing import Any, Protocol

REFUSED = "refused"
DENIED = "denied"
ALLOWED = "allowed"


class Family(Protocol):
    """One kind of hostile input. `make` and `fault` are the campaign's own; only `run` is measured and may break."""

    name: str

    def make(self, rng: random.Random) -> Any:
        """The next input, for a `rng` of its own: the same state gives the same input."""
        ...

    def run(self, case: Any) -> str:
        """Give the input to the subject; one of the three outcomes above. Any exception that leaves it is a crash."""
        ...

    def fault(self, case: Any, outcome: str) -> str:
        """Why this outcome is not what fail-closed means; empty when nothing is wrong with it."""
        ...

    def stored(self, case: Any) -> bytes:
        """The input as bytes, to be kept when it broke something."""
        ...
