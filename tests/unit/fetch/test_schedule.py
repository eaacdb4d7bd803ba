from email.utils import formatdate
from math import inf

import pytest

from extauthz.authn.fetch.options import FetchOptions
from extauthz.authn.fetch.schedule import Intervals, Schedule, cache_lifetime, retry_after

T = 1_000_000.0


def schedule(spread=0.0, now=T, **options):
    return Schedule(Intervals.of(FetchOptions(**options)), now, lambda: spread)


def test_the_first_fetch_is_due_at_once():
    made = schedule()
    assert made.due == T
    assert not made.stale(T + 1e9)


@pytest.mark.parametrize(
    ("lifetime", "wait"), [(None, 1200), (300, 300), (3600, 1200), (10, 60), (0, 60), (1200, 1200)]
)
def test_an_answer_can_ask_to_come_earlier_but_not_later_or_too_early(lifetime, wait):
    made = schedule()
    made.succeeded(T, lifetime)
    assert made.due == T + wait


def test_refreshes_spread_by_up_to_a_tenth_but_never_below_the_minimum():
    made = schedule(spread=1.0)
    made.succeeded(T, None)
    assert made.due == T + 1080
    made.succeeded(T, 60)
    assert made.due == T + 60


def test_failures_back_off_from_one_second_to_one_minute():
    made, waits = schedule(), []
    for _ in range(9):
        made.failed(T)
        waits.append(made.due - T)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    made.succeeded(T, None)
    made.failed(T)
    assert made.due - T == 1
    for _ in range(2000):
        made.failed(T)
    assert made.due - T == 60


def test_retries_spread_by_up_to_a_half():
    made = schedule(spread=1.0)
    made.failed(T)
    assert made.due == T + 0.5


def test_retry_after_is_honoured_up_to_the_refresh_interval():
    made = schedule()
    made.failed(T, retry_after=100)
    assert made.due == T + 100
    made.failed(T, retry_after=1e9)
    assert made.due == T + 1200


def test_a_deliberately_short_refresh_shortens_the_other_intervals():
    made = schedule(refresh=2)
    made.succeeded(T, None)
    assert made.due == T + 2
    for _ in range(10):
        made.failed(T)
    assert made.due == T + 2


def test_a_missing_key_makes_one_early_fetch_per_minimum_interval():
    made = schedule()
    made.succeeded(T, None)
    made.key_missing(T + 1)
    assert made.due == T + 1
    made.early_fetch_begins(T + 1)
    made.succeeded(T + 1.5, None)
    made.key_missing(T + 2)
    assert made.due == T + 61
    made.key_missing(T + 30)
    assert made.due == T + 61


def test_a_missing_key_does_not_wake_what_is_never_fetched():
    made = schedule()
    made.never()
    made.key_missing(T)
    assert made.due == inf


def test_a_set_is_stale_after_a_week_without_success():
    made = schedule()
    made.succeeded(T, None)
    made.failed(T + 7 * 86400 - 1)
    assert not made.stale(T + 7 * 86400 - 1)
    assert made.stale(T + 7 * 86400)
    made.restored(T, 6 * 86400)
    assert made.stale_at == T + 86400


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        ({}, None),
        ({"cache-control": "public"}, None),
        ({"cache-control": "max-age=300"}, 300),
        ({"cache-control": 'Public, MAX-AGE="300"'}, 300),
        ({"cache-control": "max-age=300", "age": "100"}, 200),
        ({"cache-control": "max-age=300", "age": "400"}, 0),
        ({"cache-control": "max-age=300, no-cache"}, 0),
        ({"cache-control": "no-store"}, 0),
        ({"cache-control": "max-age=0"}, 0),
        ({"cache-control": "s-maxage=10"}, None),
        ({"cache-control": "s-maxage=10, max-age=300, must-revalidate, private"}, 300),
        ({"cache-control": "max-age=300, max-age=10"}, 300),
        ({"cache-control": ",, =, max-age"}, 0),
        ({"cache-control": "max-age=1.5"}, 0),
        ({"cache-control": "max-age=300", "age": "x"}, 300),
        ({"cache-control": "max-age=-1"}, 0),
        ({"cache-control": "max-age=x"}, 0),
        ({"cache-control": "max-age=" + "9" * 400}, 10 * 365 * 86400),
        ({"cache-control": "max-age=300", "expires": "0"}, 300),
        ({"expires": "0"}, 0),
        ({"expires": formatdate(T + 500, usegmt=True)}, 500),
        ({"expires": formatdate(T + 500, usegmt=True), "date": formatdate(T - 100, usegmt=True)}, 600),
        ({"expires": formatdate(T - 500, usegmt=True)}, 0),
        ({"expires": formatdate(T + 500, usegmt=True), "age": "100"}, 400),
        ({"expires": formatdate(T + 500, usegmt=True), "cache-control": "public"}, 500),
        ({"expires": "Thu, 99 Foo 2026"}, 0),
    ],
)
def test_the_lifetime_of_an_answer_is_read_as_http_says(headers, lifetime):
    assert cache_lifetime(headers, T) == lifetime


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("120", 120), ("x", 0), ("-5", 0), (formatdate(T + 90, usegmt=True), 90)]
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert retry_after({"retry-after": text}, T) == seconds
