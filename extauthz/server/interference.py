"""Keeps the interpreter itself from holding up calls: its garbage collector, and threads that compute for long.

Without this a full collection looks through everything that policies and cached tokens are made of, and each hand-over
of the interpreter between threads takes up to the switch interval. `python -m benchmarks pauses` measures what calls
see of it, with and without.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

LOADING_SWITCH_SECONDS = 0.0005
"""The switch interval while policies are loaded. Not at other times: hand-overs cost grpcio a tenth of its rate."""


def keep_collections_short() -> None:
    """From now on each full collection looks only at what came after the one before.

    What survives a full collection is policies, keys and cached tokens, which stay; they are taken out of the
    collector's sight. They go when nothing refers to them, as everything does; only what survived once and became part
    of a cycle later would stay, and nothing that lives so long does.
    """
    gc.freeze()
    if _freeze_survivors not in gc.callbacks:
        gc.callbacks.append(_freeze_survivors)


@contextmanager
def loading() -> Iterator[None]:
    """While policies are read and compiled: no collections, quick hand-overs; afterwards nothing to look through."""
    enabled, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(min(interval, LOADING_SWITCH_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        # Before collections begin again: the next one, of the youngest, would look at everything that was made here.
        gc.freeze()
        if enabled:
            gc.enable()


def _freeze_survivors(phase: str, information: Mapping[str, int]) -> None:
    if phase == "stop" and information["generation"] == 2:
        gc.freeze()
