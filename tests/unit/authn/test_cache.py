"""Remembered answers: what is kept, what goes first, and that the counts stay true whatever happens."""

from dataclasses import dataclass, field
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.authn.cache import ENTRY_BYTES, Cache, Entry


@dataclass
class Source:
    """A source of keys, of which only the identity of the set matters."""

    key_set: object = field(default_factory=object)


SOURCE = Source()


def entry(*, end=1000.0, size=0, source=SOURCE, others=()):
    return Entry("answer", 0.0, end, source, source.key_set, others, size)


def assert_counts_are_true(cache):
    assert cache.bytes == sum(kept.size for kept in cache.entries.values())
    assert len(cache._hand) == len(cache.entries)
    assert set(cache._hand) == set(cache.entries)
    assert len(cache.entries) <= cache.max_entries
    assert cache.bytes <= cache.max_bytes


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["store", "store", "store", "use", "rotate"]),
        st.integers(0, 12),
        st.integers(0, 6000),
        st.integers(0, 40),
    ),
    max_size=80,
)


@given(STEPS, st.integers(0, 6), st.integers(0, 4000))
def test_counts_and_bounds_hold_whatever_is_stored(steps, max_entries, max_bytes):
    cache, source = Cache(max_entries, max_bytes), Source()
    for now, (step, key, size, lives) in enumerate(steps):
        if step == "store":
            cache.store(key, new := entry(end=now + lives, size=size, source=source), now)
            if new.size <= max_bytes and max_entries > 0:
                assert cache.entries[key] is new
        elif step == "use":
            found = cache.get(key, now)
            assert found is None or (now < found.end and found.key_set is source.key_set)
        else:
            source.key_set = object()
        assert_counts_are_true(cache)


def test_what_was_used_stays_longer_than_what_was_not():
    cache = Cache(4, 10**6)
    for number in range(4):
        cache.store(number, entry(), 1.0)
    assert cache.get(2, 1.0)
    for number in range(10, 14):
        cache.store(number, entry(), 1.0)
    assert 2 in cache.entries
    assert cache.evictions == 4
    for number in range(20, 30):
        cache.store(number, entry(), 1.0)
    assert 2 not in cache.entries


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 9])
def test_nothing_unused_stays_in_a_full_cache_for_long(size):
    cache = Cache(size, 10**6)
    for number in range(10 * size):
        cache.store(number, entry(), 1.0)
    assert min(cache.entries) >= 8 * size


def test_storing_stays_cheap_when_everything_was_used():
    cache = Cache(1000, 10**6)
    for number in range(1000):
        cache.store(number, entry(), 1.0)
    for number in range(1000):
        cache.get(number, 1.0)
    cache.store("new", entry(), 1.0)
    assert sum(not kept.used for kept in cache.entries.values()) < 20
    assert_counts_are_true(cache)


@pytest.mark.parametrize("reason", ["expired", "keys changed", "second keys changed"])
def test_entries_of_no_use_go_while_others_come(reason):
    source = Source()
    cache = Cache(10**6, 10**9)
    second = Source()
    for number in range(1000):
        others = ((second, second.key_set),) if reason == "second keys changed" else ()
        cache.store(number, entry(end=10.0 if reason == "expired" else 1e9, source=source, others=others), 1.0)
    assert len(cache.entries) == 1000
    if reason == "keys changed":
        source.key_set = object()
    elif reason == "second keys changed":
        second.key_set = object()
    later = Source()
    for number in range(600):
        cache.store(("new", number), entry(end=1e9, source=later), 20.0)
    # Two go for each that comes, so the table shrinks after a rush.
    assert len(cache.entries) == 600
    assert cache.evictions == 0
    assert_counts_are_true(cache)


def test_a_key_that_is_stored_again_has_one_place():
    cache = Cache(10, 10**6)
    for _ in range(50):
        cache.store("same", entry(size=100), 1.0)
    assert len(cache.entries) == 1
    assert cache.bytes == 100 + ENTRY_BYTES
    assert_counts_are_true(cache)


def test_an_entry_that_replaces_a_smaller_one_is_not_what_goes_for_it():
    cache = Cache(10, 3 * ENTRY_BYTES)
    for key in ("a", "b", "c"):
        cache.store(key, entry(), 1.0)
    cache.store("a", larger := entry(size=ENTRY_BYTES), 1.0)
    assert cache.entries["a"] is larger
    assert len(cache.entries) == 2
    assert_counts_are_true(cache)


def test_storing_from_several_threads_loses_no_count():
    cache = Cache(50, 10**6)

    def work(first):
        for number in range(3000):
            cache.store((first + number) % 200, entry(end=1.0 + number % 7), number % 5)
            cache.get(number % 200, 1.0)

    threads = [Thread(target=work, args=(first,)) for first in range(0, 200, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_counts_are_true(cache)
