"""Remembered answers, bounded in number and bytes. What may be remembered, and for how long, others decide.

A hit has to cost a dict look-up and no more, so a look-up does not move anything (as an LRU cache would): it sets a
mark. A new entry makes the hand of a clock go round: entries that can never be used again are dropped, and when there
are too many, the first one without a mark goes; marked ones lose the mark and stay ("second chance").

Calls may come from several threads. A look-up is one dict access; storing never waits: while another thread stores, the
entry is simply not kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

from extauthz.authn.keys import KeySet, KeySource

T = TypeVar("T")

ENTRY_BYTES: Final = 320
"""What an entry, its slot in the table and its key's header take, about."""

_DROPPED: Final = 2
"""Entries of no use that are dropped for each new one: with one the table could not shrink after a rush."""

_CHANCES: Final = 16
"""Marked entries that are passed over for one new entry, so that storing has a bounded cost."""


class Entry(Generic[T]):
    """An answer, and when it holds: while `begin <= now < end`, and while each source of keys gives its key set.

    Nearly all answers rest on one source; `others` has those beyond. `size` is what the answer takes (bytes, about).
    `used` is the mark.
    """

    __slots__ = ("begin", "end", "key_set", "others", "result", "size", "source", "used")

    def __init__(
        self,
        result: T,
        begin: float,
        end: float,
        source: KeySource,
        key_set: KeySet,
        others: Sequence[tuple[KeySource, KeySet]],
        size: int,
    ) -> None:
        self.result = result
        self.begin = begin
        self.end = end
        self.source = source
        self.key_set = key_set
        self.others = others
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

    __slots__ = ("_hand", "_lock", "bytes", "entries", "evictions", "max_bytes", "max_entries")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.entries: dict[Hashable, Entry[T]] = {}
        # All keys, in the order in which the hand comes to them. A dict would have to be searched for its first key.
        self._hand: deque[Hashable] = deque()
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
        if entry.size > self.max_bytes or self.max_entries < 1 or not self._lock.acquire(False):
            return
        try:
            hand = self._hand
            if self._needs_room(key, entry):
                # No sweep beside it: an entry that one moves on the other would never come to.
                while hand and self._needs_room(key, entry):
                    self._evict()
            else:
                self._sweep(now)
            old = self.entries.get(key)
            # In this order: if memory runs out between them, the hand still comes to nothing that is not there.
            self.entries[key] = entry
            if old is None:
                hand.append(key)
                self.bytes += entry.size
            else:
                self.bytes += entry.size - old.size
        finally:
            self._lock.release()

    def _needs_room(self, key: Hashable, entry: Entry[T]) -> bool:
        """Whether other entries have to go before this one may be kept under its key."""
        old = self.entries.get(key)
        if old is not None:
            return self.bytes - old.size + entry.size > self.max_bytes
        return len(self.entries) >= self.max_entries or self.bytes + entry.size > self.max_bytes

    def _sweep(self, now: float) -> None:
        """Drop the next entries if they are of no use; the first one of use ends that and has its turn again later."""
        hand = self._hand
        for _ in range(min(_DROPPED, len(hand))):
            entry = self.entries[hand[0]]
            if now < entry.end and entry.has_current_keys():
                hand.rotate(-1)
                return
            self._drop()

    def _evict(self) -> None:
        """Drop the next entry without a mark."""
        hand = self._hand
        for _ in range(_CHANCES):
            entry = self.entries[hand[0]]
            if not entry.used:
                break
            entry.used = False
            hand.rotate(-1)
        self._drop()
        self.evictions += 1

    def _drop(self) -> None:
        """Forget the entry that the hand points at."""
        self.bytes -= self.entries.pop(self._hand.popleft()).size
