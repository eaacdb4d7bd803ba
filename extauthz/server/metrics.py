"""What is counted, under which names, and how the counts of several processes become one.

Values are plain numbers in plain dictionaries: a `Snapshot` maps a family's name to its values by label values. Hot
code increments integers of its own, and a snapshot is taken of them only when somebody asks. How a snapshot is written
for Prometheus is `exposition`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

Labels = tuple[str, ...]
Snapshot = dict[str, dict[Labels, float]]
"""Family name (without the `extauthz_` prefix) -> label values -> value. Histograms as `duration_values` gives them."""

NO_LABELS: Labels = ()

FIRST_BUCKET = 10
LAST_BUCKET = 30
"""Bits of the nanoseconds that the first and the last finite bucket of a duration hold: 2**10 ns is 1 us, 2**30 1 s."""

MAX_REASONS = 1_000
ALLOWED_REASON = "allowed"
OTHER_REASON = "other"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `merge` says how the values of several processes become one.

    Counters are named without their `_total`. A `standard` name is one that all Prometheus clients use, without prefix.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Callable[[Iterable[float]], float] = sum
    standard: bool = False


FAMILIES = (
    Family("decisions", Kind.COUNTER, "Decisions made, by Envoy's response code details.", ("decision", "reason")),
    Family("check_duration_seconds", Kind.HISTOGRAM, "Time from a complete message to its answer.", ("le",)),
    Family("check_errors", Kind.COUNTER, "Check calls that ended with a gRPC error, by its status.", ("status",)),
    Family("grpc_in_flight", Kind.GAUGE, "Calls begun and not yet answered."),
    Family("grpc_connections", Kind.GAUGE, "Open connections."),
    Family("grpc_connections_accepted", Kind.COUNTER, "Connections accepted."),
    Family("grpc_calls", Kind.COUNTER, "Calls begun, health checks included."),
    Family("grpc_resets", Kind.COUNTER, "Streams that the peer reset."),
    Family("grpc_refused", Kind.COUNTER, "Connections and calls refused by the transport.", ("reason",)),
    Family("grpc_received_bytes", Kind.COUNTER, "Bytes received."),
    Family("grpc_sent_bytes", Kind.COUNTER, "Bytes sent."),
    Family("token_cache_hits", Kind.COUNTER, "Tokens answered from the cache."),
    Family("token_cache_misses", Kind.COUNTER, "Tokens that had to be verified."),
    Family("token_cache_evictions", Kind.COUNTER, "Tokens dropped from the cache to make room."),
    Family("token_cache_entries", Kind.GAUGE, "Tokens in the cache."),
    Family("token_cache_bytes", Kind.GAUGE, "Bytes that the cached tokens account for."),
    Family("jwks_fetch", Kind.COUNTER, "Fetches of remote key sets, by result.", ("uri", "result")),
    Family("jwks_age_seconds", Kind.GAUGE, "Time since a remote key set was last fetched.", ("uri",), max),
    Family("jwks_keys", Kind.GAUGE, "Usable keys of a remote key set.", ("uri",), min),
    Family("policy_reload", Kind.COUNTER, "Reloads of the policies, by result.", ("result",)),
    Family("policy_last_reload_successful", Kind.GAUGE, "1, or 0 while the last reload is one that failed.", (), min),
    Family("policy_loaded_timestamp_seconds", Kind.GAUGE, "When the policies in force were loaded.", (), min),
    Family("policies", Kind.GAUGE, "Resources in force, by kind.", ("kind",), max),
    Family("decision_log_lines", Kind.COUNTER, "Lines of the decision log, by what became of them.", ("result",)),
    Family("log_lines_dropped", Kind.COUNTER, "Lines of the log that were dropped because it could not be written."),
    Family("spans_dropped", Kind.COUNTER, "Spans that were dropped because the tracer was behind."),
    Family("workers", Kind.GAUGE, "Worker processes that are serving."),
    Family("worker_restarts", Kind.COUNTER, "Worker processes that ended by themselves and were replaced."),
    Family("build_info", Kind.GAUGE, "Version and transport, always 1.", ("version", "transport"), max),
    Family("process_cpu_seconds", Kind.COUNTER, "CPU time spent, user and system.", standard=True),
    Family("process_resident_memory_bytes", Kind.GAUGE, "Resident memory.", standard=True),
    Family("process_open_fds", Kind.GAUGE, "Open file descriptors.", standard=True),
    Family("process_start_time_seconds", Kind.GAUGE, "When the process began.", (), min, standard=True),
)

_BY_NAME = {family.name: family for family in FAMILIES}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The snapshot of all processes together: counters and most gauges add up, ages are those of the oldest."""
    gathered: dict[str, dict[Labels, list[float]]] = {}
    for snapshot in snapshots:
        for name, values in snapshot.items():
            family = gathered.setdefault(name, {})
            for labels, value in values.items():
                family.setdefault(labels, []).append(value)
    return {
        name: {labels: _BY_NAME[name].merge(values) for labels, values in family.items()}
        for name, family in gathered.items()
    }


def only_counters(snapshot: Snapshot) -> Snapshot:
    """What must not be forgotten of a process that has ended: counters never go back."""
    return {name: dict(values) for name, values in snapshot.items() if _BY_NAME[name].kind is not Kind.GAUGE}


def duration_values(buckets: Sequence[int], total_ns: int) -> dict[Labels, float]:
    """A histogram's values from `buckets`, where `buckets[b]` counts durations of b bits in nanoseconds.

    The result maps each upper bound in seconds to the cumulative count, `("+Inf",)` to that of all and `("sum",)` to
    the seconds spent.
    """
    values: dict[Labels, float] = {}
    counted = 0
    for bits, count in enumerate(list(buckets)):
        counted += count
        if FIRST_BUCKET <= bits <= LAST_BUCKET:
            values[(repr((1 << bits) / 1e9),)] = counted
    values[("+Inf",)] = counted
    values[("sum",)] = total_ns / 1e9
    return values


class ReasonCounts:
    """Decisions by reason over all reloads: the counts of the policies in force and of those before them.

    An `Authorizer` counts in a dictionary of its own; `follow` takes up that of a new one. Reasons name policies, so
    their number is bounded by what operators write, and here by MAX_REASONS: what comes later is counted as `other`.
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        self._current: Mapping[str, int] = {}
        self._previous: Mapping[str, int] = {}
        self._shown = {ALLOWED_REASON}

    def follow(self, counts: Mapping[str, int]) -> None:
        """From now on `counts` grows. A call that began before may still add to the one before, which stays alive."""
        self._add(self._kept, self._previous)
        self._previous, self._current = self._current, counts

    def total(self) -> dict[str, int]:
        """Every reason with its count."""
        counts = dict(self._kept)
        self._add(counts, self._previous)
        self._add(counts, self._current)
        return counts

    def _add(self, target: dict[str, int], counts: Mapping[str, int]) -> None:
        for reason, count in list(counts.items()):
            shown = reason if self._is_shown(reason) else OTHER_REASON
            target[shown] = target.get(shown, 0) + count

    def _is_shown(self, reason: str) -> bool:
        if reason in self._shown:
            return True
        if len(self._shown) < MAX_REASONS:
            self._shown.add(reason)
            return True
        return False


class CacheStatistics(Protocol):
    """What an authenticator counts about its cache of verified tokens."""

    @property
    def hits(self) -> int: ...

    @property
    def misses(self) -> int: ...

    @property
    def evictions(self) -> int: ...

    @property
    def entries(self) -> int: ...

    @property
    def bytes(self) -> int: ...


class CacheCounts:
    """The token cache over all reloads: each set of policies has a new, empty one, but counters never go back."""

    def __init__(self) -> None:
        self._kept = (0, 0, 0)
        self._current: CacheStatistics | None = None
        self._previous: CacheStatistics | None = None

    def follow(self, statistics: CacheStatistics) -> None:
        """From now on `statistics` grows; those before it may still do so for a moment."""
        self._kept = self._totals(self._previous)
        self._previous, self._current = self._current, statistics

    def snapshot(self) -> Snapshot:
        """Counters over all reloads, and the size of the cache in use."""
        current, previous = self._current, self._previous
        if current is None:
            return {}
        hits, misses, evictions = self._totals(previous)
        return {
            "token_cache_hits": {NO_LABELS: hits + current.hits},
            "token_cache_misses": {NO_LABELS: misses + current.misses},
            "token_cache_evictions": {NO_LABELS: evictions + current.evictions},
            "token_cache_entries": {NO_LABELS: current.entries},
            "token_cache_bytes": {NO_LABELS: current.bytes},
        }

    def _totals(self, more: CacheStatistics | None) -> tuple[int, int, int]:
        hits, misses, evictions = self._kept
        if more is None:
            return hits, misses, evictions
        return hits + more.hits, misses + more.misses, evictions + more.evictions
