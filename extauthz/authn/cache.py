"""Remembered answers, bounded in number and bytes. What may be remembered, and for how long, others decide.

A hit has to cost a dict look-up and no more, so a look-up does not move anything (as an LRU cache would): it sets a
mark. A new entry makes the hand of a clock go round: entries that can never be used again are dropped, and when there
are too many, the first one without a mark goes; marked ones lose the mark and stay ("second chance"). Entries are kept
in the order in which the hand comes to them.

Calls may come from several threads. A look-up is one dict access; storing never waits: while another thread stores, the
entry is simply not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

from extauthz.authn.keys import KeySet, KeySource

T = TypeVar("T")

ENTRY_BYTES: Final = 320
"""What an entry, its slot in the table and its key's header take, about."""

_CHANCES: Final = 16
"""Marked entries that are passed over for one new entry, so that storing has a bounded cost."""

_SWEPT: Final = 2
"""Entries that are looked at for each new one, whether or not there are too many."""


class Entry(Generic[T]):
    """An answer, and when it holds: while `begin <= now < end`, and while each source of `keys` gives its key set.

    `used` is the mark. The first source stands apart, and `others` is mostly empty, for readers on the hot path.
    """

    __slots__ = ("begin", "end", "key_set", "others", "result", "size", "source", "used")

    def __init__(
        self, result: T, begin: float, end: float, keys: Sequence[tuple[KeySource, KeySet]], size: int
    ) -> None:
        self.result = result
        self.begin = begin
        self.end = end
        self.source, self.key_set = keys[0]
        self.others = tuple(keys[1:]) if len(keys) > 1 else ()
        self.size = size + ENTRY_BYTES
        self.used = False

    def holds(self, now: float) -> bool:
        """Whether the answer is the one that would be worked out now."""
        return self.begin <= now < self.end and self.has_current_keys()

    def has_current_keys(self) -> bool:
        """Whether the keys that the answer rests on are still the ones in use."""
        if self.source.key_set is not self.key_set:
            return False
        return not self.others or all(source.key_set is key_set for source, key_set in self.others)


class Cache(Generic[T]):
    """Entries by key. `entries` may be read directly on the hot path; writing goes through `store`."""

    __slots__ = ("_lock", "bytes", "entries", "evictions", "max_bytes", "max_entries")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.entries: OrderedDict[Hashable, Entry[T]] = OrderedDict()
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.bytes = 0
        self.evictions = 0
        self._lock = Lock()

    def get(self, key: Hashable, now: float) -> Entry[T] | None:
        """The entry of a key if it holds now."""
        entry = self.entries.get(key)
        if entry is None or not entry.holds(now):
            return None
        entry.used = True
        return entry

    def store(self, key: Hashable, entry: Entry[T], now: float) -> None:
        """Remember an entry in place of what was there; one that is larger than the cache is not kept."""
        if entry.size > self.max_bytes or not self._lock.acquire(False):
            return
        try:
            entries = self.entries
            if key in entries:
                self._drop(key)
            self._sweep(now)
            while entries and (len(entries) >= self.max_entries or self.bytes + entry.size > self.max_bytes):
                self._evict()
            if self.max_entries > 0:
                entries[key] = entry
                self.bytes += entry.size
        finally:
            self._lock.release()

    def _drop(self, key: Hashable) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    def _sweep(self, now: float) -> None:
        entries = self.entries
        for _ in range(min(_SWEPT, len(entries))):
            key = next(iter(entries))
            entry = entries[key]
            if now >= entry.end or not entry.has_current_keys():
                self._drop(key)
            else:
                entries.move_to_end(key)

    def _evict(self) -> None:
        for _ in range(_CHANCES):
            key, entry = next(iter(self.entries.items()))
            if not entry.used:
                break
            entry.used = False
            self.entries.move_to_end(key)
        key = next(iter(self.entries))
        self._drop(key)
        self.evictions += 1
