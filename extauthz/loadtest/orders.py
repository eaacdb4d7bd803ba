"""What parent and worker processes say to each other, through pipes."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.loadtest.arrivals import ArrivalKind, Share
from extauthz.loadtest.drawing import Corpus
from extauthz.loadtest.sender import Wire
from extauthz.loadtest.sender_choice import Choice
from extauthz.loadtest.tally import Tally

STOP_SECONDS = 1.0
"""What calls under way have to end after a step was cut short."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker sends, whichever the rate."""

    wire: Wire
    choice: Choice
    corpus: Corpus
    arrivals: ArrivalKind
    share: Share
    seed: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has read its job and imported what it needs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, held for a time. `begin` (CLOCK_MONOTONIC ns) is the same for all workers; warm-up comes first."""

    number: int
    rate: float
    warmup: float
    seconds: float
    slice_seconds: float
    begin: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End the step: send nothing more, wait a little for what is under way."""


@dataclass(frozen=True, slots=True)
class Update:
    """What was seen since the last update."""

    tally: Tally


@dataclass(frozen=True, slots=True)
class Finished:
    """The step is over. `cpu_seconds` is what this process has used in it, `peak_in_flight` the most calls at once."""

    cpu_seconds: float
    peak_in_flight: int
    connections_opened: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot go on; the reason in words."""

    reason: str
