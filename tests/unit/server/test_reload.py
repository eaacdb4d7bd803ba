"""Reloads: their outcome, their counts, one at a time."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from extauthz.errors import PolicyError, Problem, Severity
from extauthz.server.reload import MAX_LOGGED_PROBLEMS, Reloads


def fails(*problems: Problem) -> str:
    raise PolicyError(problems)


def test_a_success_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reloads = Reloads(lambda: "3 AuthorizationPolicy; files: 1")
    outcome = reloads.now("files changed")
    assert outcome.succeeded
    assert reloads.last is outcome
    assert reloads.snapshot()["policy_reload"] == {("success",): 1, ("error",): 0}
    assert len(caplog.records) == 1
    assert "3 AuthorizationPolicy" in caplog.text


def test_a_failure_names_every_error_with_its_place_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    problems = [Problem("a.yaml", number, "spec", "is wrong") for number in range(1, 4)]
    reloads = Reloads(lambda: fails(*problems, Problem("a.yaml", 9, "", "odd", Severity.WARNING)))
    outcome = reloads.now("files changed")
    assert not outcome.succeeded
    assert outcome.problems == ("a.yaml:1: spec: is wrong", "a.yaml:2: spec: is wrong", "a.yaml:3: spec: is wrong")
    assert reloads.snapshot()["policy_reload"]["error",] == 1
    assert reloads.snapshot()["policy_last_reload_successful"] == {(): 0}
    assert len(caplog.records) == 1
    assert "stay in force: a.yaml:1: spec: is wrong; a.yaml:2" in caplog.text


def test_a_flood_of_errors_is_one_line_of_bounded_length(caplog: pytest.LogCaptureFixture) -> None:
    Reloads(lambda: fails(*[Problem("a.yaml", n, "", "x") for n in range(1000)])).now("SIGHUP")
    assert f"and {1000 - MAX_LOGGED_PROBLEMS} more" in caplog.text
    assert caplog.text.count("a.yaml") == MAX_LOGGED_PROBLEMS


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ZeroDivisionError("a bug"), MemoryError()])
def test_whatever_goes_wrong_is_an_outcome_and_the_next_reload_works(error: Exception) -> None:
    errors = [error]

    def reload() -> str:
        if errors:
            raise errors.pop()
        return "fine"

    reloads = Reloads(reload)
    assert not reloads.now("files changed").succeeded
    assert reloads.now("files changed").succeeded


def test_reloads_run_one_at_a_time() -> None:
    running: list[int] = []
    most: list[int] = []

    def reload() -> str:
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return ""

    reloads = Reloads(reload)
    threads = [threading.Thread(target=reloads.now, args=("x",)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_requests_do_not_wait_and_those_that_pile_up_are_one() -> None:
    entered, release = threading.Event(), threading.Event()
    runs: list[str] = []

    def reload() -> str:
        runs.append("began")
        entered.set()
        release.wait()
        runs.append("ended")
        return ""

    reloads = Reloads(reload)
    reloads.start()
    reloads.request("SIGHUP")
    assert entered.wait(30)
    for _ in range(100):
        reloads.request("SIGHUP")
    assert runs == ["began"]
    release.set()
    deadline = time.monotonic() + 30
    while len(runs) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert runs == ["began", "ended"] * 2
    reloads.close()


def test_no_reload_begins_after_closing() -> None:
    reloads = Reloads(lambda: "")
    reloads.close()
    assert not reloads.now("SIGHUP").succeeded
    assert reloads.snapshot()["policy_reload"]["success",] == 0


def test_the_last_reload_counts_as_successful_before_the_first_and_after_a_repair():
    outcomes = iter([OSError("gone"), None])

    def reload() -> str:
        if (error := next(outcomes)) is not None:
            raise error
        return "loaded"

    reloads = Reloads(reload)
    seen = [reloads.snapshot()["policy_last_reload_successful"][()]]
    for _ in range(2):
        reloads.now("asked for")
        seen.append(reloads.snapshot()["policy_last_reload_successful"][()])
    assert seen == [1, 0, 1]
