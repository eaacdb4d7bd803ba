"""Log lines: one event, one line, in both forms; and what is held back."""

from __future__ import annotations

import json
import logging
import os

import pytest

from extauthz.errors import UsageError
from extauthz.server import logs
from extauthz.server.logs import Log, StackThrottle


class Captured:
    """A log into a pipe."""

    def __init__(self, log_format: str, level: str) -> None:
        self._read, self._write = os.pipe()
        self.log = Log(log_format, level, descriptor=self._write)
        self.log.start()

    def lines(self) -> list[str]:
        self.log.close(60)
        os.close(self._write)
        with os.fdopen(self._read) as stream:
            return stream.read().splitlines()


@pytest.fixture
def logger() -> logging.Logger:
    """A logger as modules have them."""
    return logging.getLogger("extauthz.server.testing")


def test_text_lines_have_time_level_module_and_message(logger: logging.Logger) -> None:
    captured = Captured("text", "info")
    logger.warning("%d things: %s", 2, "ä")
    (line,) = captured.lines()
    assert line.endswith("Z WARNING testing: 2 things: ä")


def test_a_message_with_line_breaks_stays_one_line(logger: logging.Logger) -> None:
    captured = Captured("text", "info")
    logger.info("a\nb\rc")
    assert captured.lines()[0].endswith("a\\nb\\rc")


def test_json_lines_are_objects_with_the_stack_in_them(logger: logging.Logger) -> None:
    captured = Captured("json", "info")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("it failed")
    logger.info("next", extra={"fields": {"worker": 3}})
    first, second = map(json.loads, captured.lines())
    assert first["severity"] == "ERROR"
    assert first["logger"] == "extauthz.server.testing"
    assert first["message"] == "it failed"
    assert "ValueError: broken" in first["exception"]
    assert second["worker"] == 3


def test_levels_below_the_wanted_one_are_left_out(logger: logging.Logger) -> None:
    captured = Captured("text", "warning")
    logger.info("unwanted")
    logger.error("wanted")
    assert [line.rpartition(" ")[2] for line in captured.lines()] == ["wanted"]


def test_warnings_of_libraries_are_in_the_same_form() -> None:
    captured = Captured("json", "debug")
    logging.getLogger("some.library").info("unwanted")
    logging.getLogger("some.library").warning("wanted")
    assert [json.loads(line)["message"] for line in captured.lines()] == ["wanted"]


def test_after_closing_the_loggers_are_as_before(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    captured = Captured("text", "info")
    captured.lines()
    logger.warning("elsewhere")
    assert "elsewhere" in caplog.text


def test_unknown_formats_and_levels_are_refused() -> None:
    logs.check_options("text", "debug")
    with pytest.raises(UsageError, match="use text or json"):
        logs.check_options("xml", "info")
    with pytest.raises(UsageError, match="use one of debug, info, warning, error"):
        logs.check_options("text", "loud")


def test_stacks_are_let_through_now_and_then_and_those_held_back_are_counted() -> None:
    throttle = StackThrottle(interval=1000.0)
    assert throttle.admit() == 0
    assert throttle.admit() is None
    assert throttle.admit() is None
    throttle = StackThrottle(interval=0.0)
    assert throttle.admit() == 0
    assert throttle.admit() == 0


def test_those_held_back_are_told_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(logs, "monotonic", lambda: now[0])
    throttle = StackThrottle(interval=1.0)
    assert [throttle.admit() for _ in range(4)] == [0, None, None, None]
    now[0] += 1.0
    assert throttle.admit() == 3
