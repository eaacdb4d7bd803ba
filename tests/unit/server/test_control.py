"""The line between parent and workers: replies, errors, time limits, ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from extauthz.errors import PolicyError, Problem, UsageError
from extauthz.server.control import Caller, Responder, WorkerGone


class Line:
    """Both ends of a line, the worker's in a thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.gone = threading.Event()
        self.hung_up = threading.Event()
        self.caller = Caller(ours, self.gone.set)
        self._responder = Responder(theirs.detach())
        threading.Thread(target=self._respond, daemon=True).start()

    def _respond(self) -> None:
        self._responder.serve(self._run)
        self.hung_up.set()

    def _run(self, command: str, *arguments: Any) -> Any:
        match command:
            case "add":
                return sum(arguments)
            case "sleep":
                time.sleep(arguments[0])
                return "slept"
            case "policy":
                raise PolicyError([Problem("a.yaml", 3, "spec", "wrong")])
            case "usage":
                raise UsageError("use something else")
        raise ZeroDivisionError("a bug")


@pytest.fixture
def line() -> Iterator[Line]:
    """A line that is hung up at the end."""
    made = Line()
    yield made
    made.caller.close()


def test_commands_have_results(line: Line) -> None:
    assert line.caller.ask("add", 1, 2, 3) == 6


def test_errors_come_back_as_they_were(line: Line) -> None:
    with pytest.raises(PolicyError) as error:
        line.caller.ask("policy")
    assert error.value.problems == (Problem("a.yaml", 3, "spec", "wrong"),)
    with pytest.raises(UsageError, match="use something else"):
        line.caller.ask("usage")
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug"):
        line.caller.ask("anything")


def test_a_slow_command_does_not_hold_up_others(line: Line) -> None:
    slow = threading.Thread(target=line.caller.ask, args=("sleep", 0.5))
    slow.start()
    began = time.monotonic()
    assert line.caller.ask("add", 1) == 1
    assert time.monotonic() - began < 0.3
    slow.join()


def test_a_late_reply_is_nobody_elses(line: Line) -> None:
    with pytest.raises(TimeoutError):
        line.caller.ask("sleep", 0.1, seconds=0.02)
    for _ in range(20):
        assert line.caller.ask("add", 5) == 5
        time.sleep(0.01)


def test_hanging_up_is_noticed_at_both_ends(line: Line) -> None:
    waiting: list[Exception] = []

    def ask() -> None:
        try:
            line.caller.ask("sleep", 30)
        except WorkerGone as error:
            waiting.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.05)
    line.caller.close()
    asking.join(5)
    assert len(waiting) == 1
    assert line.gone.wait(5)
    assert line.hung_up.wait(5)
    with pytest.raises(WorkerGone):
        line.caller.ask("add", 1)


def test_messages_of_a_megabyte_pass(line: Line) -> None:
    assert line.caller.ask("add", *range(200_000)) == sum(range(200_000))
