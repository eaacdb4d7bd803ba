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
        self.entered = threading.Event()
        self.release = threading.Event()
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
            case "wait":
                self.entered.set()
                self.release.wait()
                return "released"
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
    made.release.set()
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
    said: list[str] = []
    slow = threading.Thread(target=lambda: said.append(line.caller.ask("wait")))
    slow.start()
    assert line.entered.wait(30)
    assert line.caller.ask("add", 1, seconds=30) == 1
    assert said == []
    line.release.set()
    slow.join(30)
    assert said == ["released"]


def test_a_late_reply_is_nobody_elses(line: Line) -> None:
    with pytest.raises(TimeoutError):
        line.caller.ask("wait", seconds=0.02)
    line.release.set()
    for _ in range(20):
        assert line.caller.ask("add", 5) == 5
        time.sleep(0.01)


def test_hanging_up_is_noticed_at_both_ends(line: Line) -> None:
    waiting: list[Exception] = []

    def ask() -> None:
        try:
            line.caller.ask("wait")
        except WorkerGone as error:
            waiting.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert line.entered.wait(30)
    line.caller.close()
    asking.join(30)
    assert len(waiting) == 1
    assert line.gone.wait(30)
    assert line.hung_up.wait(30)
    with pytest.raises(WorkerGone):
        line.caller.ask("add", 1)


def test_messages_of_a_megabyte_pass(line: Line) -> None:
    assert line.caller.ask("add", *range(200_000)) == sum(range(200_000))
