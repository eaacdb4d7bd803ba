"""Counts what hostile inputs do: each family is run in processes that may die; memory and time are measured.

- *Crash*: an exception that is not the refusal which the subject promises for bad input, or the end of the process (a
  signal, an exit). The parent knows the number of the input that was under way, and goes on behind it.
- *Hang*: an input that takes more than 1 s of processor time, or of wall time twice (less waits for a processor),
  or after which a process gives no sign of life for 20 s: it is killed.
- *Growth*: resident memory (/proc/self/statm, after a collection and malloc_trim) at the end against that after the
  first quarter, when the caches are filled and the allocator has seen every kind of input; at most 32 MiB, which for a
  million inputs is 33 bytes each.

Every input is drawn from a generator of its own, seeded by the campaign's seed and the input's number, so that each can
be made again by itself. Keys are new in each campaign; what broke something is kept as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import mmap
import multiprocessing
import os
import random
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hostile_families import Family

HANG_SECONDS = 1.0
SILENCE_SECONDS = 20.0
GROWTH_LIMIT = 32 << 20
KEPT_INPUTS = 20
"""Inputs that broke something and are stored, for each family and kind of break."""


@dataclass
class Tally:
    """What a family's inputs did. `outcomes` counts refused, denied and allowed; `growth` is in bytes."""

    family: str
    inputs: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    wrongly_allowed: int = 0
    crashes: int = 0
    hangs: int = 0
    growth: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def violations(self) -> int:
        """How many things went wrong, growth beyond the limit being one."""
        return self.wrongly_allowed + self.crashes + self.hangs + (self.growth > GROWTH_LIMIT)

    def add(self, other: Tally) -> None:
        """Take in what another process counted; growth is added, as both were there at once."""
        for name in ("inputs", "wrongly_allowed", "crashes", "hangs", "growth", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest = max(self.slowest, other.slowest)
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        self.notes += other.notes


class Store:
    """Keeps inputs that broke something as hex files: `<family>-<kind>-<number>.hex`, the reason on the first line."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._kept: dict[str, int] = {}

    def keep(self, family: Family, kind: str, number: int, reason: str, case: Any) -> str:
        """Store an input; a line about it for people."""
        name = f"{family.name.replace(' ', '-').lower()}-{kind}-{number}.hex"
        self._kept[kind] = self._kept.get(kind, 0) + 1
        if self._directory is not None and self._kept[kind] <= KEPT_INPUTS:
            self._directory.mkdir(parents=True, exist_ok=True)
            first = reason.partition("\n")[0]
            (self._directory / name).write_text(f"# {first}\n{family.stored(case).hex()}\n")
        return f"{name}: {reason}"


def run_inputs(
    family: Family, seed: int, numbers: range, store: Store, progress: Callable[[int], object] = lambda number: None
) -> Tally:
    """Give the inputs of these numbers to a family, in this process."""
    tally = Tally(family.name)
    rng = random.Random()
    early = 0
    quarter = numbers.start + len(numbers) // 4
    started = time.monotonic()
    for number in numbers:
        progress(number)
        if number == quarter:
            early = resident_bytes()
        rng.seed(seed << 32 ^ number)
        _one(tally, family, number, family.make(rng), store)
    tally.growth = max(0, resident_bytes() - early)
    tally.seconds = time.monotonic() - started
    return tally


def _one(tally: Tally, family: Family, number: int, case: Any, store: Store) -> None:
    tally.inputs += 1
    outcome, took, hangs = "", 0.0, False
    try:
        outcome, took, cpu = _timed(family, case)
        if took > HANG_SECONDS:
            waited = _waited()
            hangs = cpu > HANG_SECONDS or _timed(family, case)[1] - (_waited() - waited) > HANG_SECONDS
    except Exception as error:
        tally.crashes += 1
        tally.notes.append(store.keep(family, "crash", number, f"{type(error).__name__}: {error}", case))
        return
    tally.outcomes[outcome] = tally.outcomes.get(outcome, 0) + 1
    tally.slowest = max(tally.slowest, took)
    if hangs:
        tally.hangs += 1
        tally.notes.append(store.keep(family, "hang", number, f"took {took:.1f} s", case))
    if reason := family.fault(case, outcome):
        tally.wrongly_allowed += 1
        tally.notes.append(store.keep(family, "allowed", number, reason, case))


def _timed(family: Family, case: Any) -> tuple[str, float, float]:
    began, cpu = time.perf_counter(), time.thread_time()
    outcome = family.run(case)
    return outcome, time.perf_counter() - began, time.thread_time() - cpu


def _waited() -> float:
    """Seconds that this thread was ready to run and no processor was free (Linux tells it per thread)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def resident_bytes() -> int:
    """This process's resident memory, garbage and freed pages given back first."""
    gc.collect()
    # What is not glibc has an allocator that decides by itself.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- in processes of their own ---------------------------------------------------------------------------------------


class _Worker:
    """A process that runs a part of a family's inputs; the number of the one under way is in shared memory."""

    def __init__(self, family: Family, seed: int, numbers: range, store: Store) -> None:
        self.family = family
        self.seed = seed
        self.numbers = numbers
        self.number = mmap.mmap(-1, 8)
        self.moved = time.monotonic()
        self._last = -1
        context = multiprocessing.get_context("fork")
        self.result, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=self._run, args=(theirs, store), daemon=True)
        self.process.start()
        theirs.close()

    def _run(self, result: Connection, store: Store) -> None:
        pack = struct.Struct("q").pack_into
        tally = run_inputs(self.family, self.seed, self.numbers, store, lambda number: pack(self.number, 0, number))
        result.send(asdict(tally))

    @property
    def at(self) -> int:
        """The number of the input under way."""
        return max(self.numbers.start, struct.unpack("q", self.number[:8])[0])

    def silent(self) -> bool:
        """Whether nothing has moved for too long."""
        now, at = time.monotonic(), self.at
        if at != self._last:
            self._last, self.moved = at, now
        return now - self.moved > SILENCE_SECONDS


def run_apart(family: Family, seed: int, count: int, store: Store, jobs: int = 1) -> Tally:
    """Give `count` inputs to a family in `jobs` processes, begun anew behind an input that ends or stops one."""
    tally = Tally(family.name)
    began = time.monotonic()
    edges = [count * part // jobs for part in range(jobs + 1)]
    parts = [range(start, end) for start, end in itertools.pairwise(edges) if end > start]
    workers = [_Worker(family, seed, part, store) for part in parts]
    while workers:
        multiprocessing.connection.wait([worker.process.sentinel for worker in workers], timeout=0.2)
        workers = [one for worker in workers if (one := _follow(worker, tally, store)) is not None]
    tally.seconds = time.monotonic() - began
    return tally


def _follow(worker: _Worker, tally: Tally, store: Store) -> _Worker | None:
    """Look after a worker: itself while it runs, None when its part is done, another one for what is left of it."""
    silent = worker.silent()
    if worker.result.poll():
        try:
            tally.add(Tally(**worker.result.recv()))
        except EOFError:
            pass  # It ended without a word.
        else:
            worker.process.join()
            return None
    if worker.process.is_alive() and not silent:
        return worker
    kind = "hang" if worker.process.is_alive() else "crash"
    worker.process.kill()
    worker.process.join()
    number = worker.at
    case = worker.family.make(random.Random(worker.seed << 32 ^ number))
    reason = f"no sign of life for {SILENCE_SECONDS:g} s" if kind == "hang" else f"ended with {worker.process.exitcode}"
    tally.notes.append(store.keep(worker.family, kind, number, reason, case))
    tally.add(Tally(worker.family.name, number + 1 - worker.numbers.start, {}, 0, kind == "crash", kind == "hang"))
    rest = range(number + 1, worker.numbers.stop)
    return _Worker(worker.family, worker.seed, rest, store) if rest else None


def summaries(tallies: Sequence[Tally]) -> list[dict[str, Any]]:
    """The tallies for a JSON summary."""
    return [{**asdict(tally), "violations": tally.violations} for tally in tallies]
