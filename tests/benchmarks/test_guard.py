"""The hot path has not become twice as slow: its time against fixed Python work, lowest of many short runs of both.

`EXPECTED` is what was measured when the hot path was last changed on purpose (`python -m pytest -s` on this file prints
what is measured now); `ALLOWED` times that is a regression.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.guard import Reference, ratio
from benchmarks.story import Measured
from extauthz.authorizer import Authorizer
from extauthz.checkapi.read import check_request_reader, read_check_request
from extauthz.istio.resources import Action, AuthorizationPolicy, Metadata, Operation, Resources, Rule

EXPECTED = {"a token seen before": 0.63, "no token": 0.51, "a bad token seen before": 2.65}
ALLOWED = 1.6

ATTEMPTS = 5
"""A machine so busy that no run of a tenth of a millisecond is undisturbed gets another chance; slow code none."""


@pytest.fixture(scope="module")
def calls() -> dict[str, Callable[[], object]]:
    """A Check call of each kind, everything remembered that can be."""
    if check_request_reader(frozenset()) is read_check_request:
        pytest.skip("without the compiled scanner decisions are slower")
    story = Measured.make()
    check = story.authorizer().check
    messages = (story.message(story.token()), story.message(), story.message("a.b.c"))
    for message in messages:
        check(message)
    return {name: partial(check, message) for name, message in zip(EXPECTED, messages, strict=True)}


def lowest(call: Callable[[], object], bound: float, against: Callable[[], object] | None = None) -> float:
    """The ratio of a call, measured again while it is above the bound."""
    found = ratio(call, against)
    for _ in range(ATTEMPTS - 1):
        if found > bound:
            found = min(found, ratio(call, against))
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_a_decision_has_not_become_much_slower(calls, name):
    found = lowest(calls[name], ALLOWED * EXPECTED[name])
    print(f"\n{name}: {found:.2f} of the reference, expected {EXPECTED[name]}", end="")
    assert found <= ALLOWED * EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_handler_that_does_everything_twice_would_be_found_out(calls, name):
    call = calls[name]

    def twice() -> None:
        call()
        call()

    # Held against the handler as it is now, which takes what is expected of it.
    assert lowest(twice, ALLOWED, against=call) > ALLOWED


def test_the_reference_does_the_same_work_each_time():
    reference = Reference()
    assert reference() == reference() == 20


def test_a_thousand_path_rules_are_decided_within_twice_the_time_of_ten():
    story = Measured.make()
    calls = []
    for count in (10, 1000):
        policies = tuple(
            AuthorizationPolicy(
                metadata=Metadata(name=f"p{number}", namespace="istio-system"),
                action=Action.ALLOW,
                rules=(Rule(operations=(Operation(paths=(f"/api/{number}",)),)),),
            )
            for number in range(count)
        )
        check = Authorizer(Resources((), policies)).check
        calls.append(partial(check, story.message(path=f"/api/{count - 1}")))
    ten, thousand = calls
    assert lowest(thousand, 2, against=ten) <= 2
