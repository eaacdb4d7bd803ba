"""The hot path has not become twice as slow: its time against fixed Python work, lowest of many short runs of both.

`EXPECTED` is what was measured when the hot path was last changed on purpose (`python -m pytest -s` on this file prints
what is measured now); half as much again is a regression.
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

EXPECTED = {"a token seen before": 0.83, "no token": 0.67, "a bad token seen before": 7.2}
ALLOWED = 1.5

ATTEMPTS = 3
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


def lowest(call: Callable[[], object], bound: float) -> float:
    """The ratio of a call, measured again while it is above the bound."""
    found = ratio(call)
    for _ in range(ATTEMPTS - 1):
        if found > bound:
            found = min(found, ratio(call))
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_a_decision_has_not_become_half_as_slow_again(calls, name):
    found = lowest(calls[name], ALLOWED * EXPECTED[name])
    print(f"\n{name}: {found:.2f} of the reference, expected {EXPECTED[name]}", end="")
    assert found <= ALLOWED * EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_handler_that_does_everything_twice_would_be_found_out(calls, name):
    call = calls[name]

    def twice() -> None:
        call()
        call()

    # Of the time now, not of the expected one, which may have come down since: twice is more than is allowed.
    assert lowest(twice, ALLOWED * ratio(call)) > ALLOWED * lowest(call, EXPECTED[name])


def test_the_reference_does_the_same_work_each_time():
    reference = Reference()
    assert reference() == reference() == 20


def test_a_thousand_path_rules_are_decided_within_twice_the_time_of_ten():
    story = Measured.make()
    found = {}
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
        found[count] = ratio(partial(check, story.message(path=f"/api/{count - 1}")))
    assert found[1000] <= 2 * found[10]
