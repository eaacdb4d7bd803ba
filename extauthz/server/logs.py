"""What the service says while it runs: lines on stderr, as text or JSON, written by a thread that nobody waits for.

Loggers are the standard library's, below `extauthz`. Nothing is logged for a call that went well or was denied; what
failed is logged with its stack, at most once a second.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from extauthz.errors import UsageError
from extauthz.server.sinks import StreamSink
from extauthz.server.writer import LineWriter

ROOT = "extauthz"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

STACK_INTERVAL_SECONDS = 1.0

CLOSE_SECONDS = 3.0
"""How long the last lines may take: more than a thread waits for its turn on a busy machine."""


def check_options(log_format: str, level: str) -> None:
    """Raises UsageError for a format and a level that do not exist, one line each."""
    complaints = []
    if log_format not in FORMATS:
        complaints.append(f"--log-format {log_format!r}: use {' or '.join(FORMATS)}")
    if level not in LEVELS:
        complaints.append(f"--log-level {level!r}: use one of {', '.join(LEVELS)}")
    if complaints:
        raise UsageError("\n".join(complaints))


class Log:
    """The process's log while it serves: from `start` to `close` loggers write to it."""

    def __init__(self, log_format: str = "text", level: str = "info", *, descriptor: int = 2) -> None:
        formatter = JsonFormatter() if log_format == "json" else TextFormatter()
        self.writer: LineWriter[str] = LineWriter(
            StreamSink(descriptor), lambda line: f"{line}\n".encode("utf-8", "backslashreplace"), name="log"
        )
        self._handler = _WriterHandler(self.writer)
        self._handler.setFormatter(formatter)
        self._level = level.upper()

    def start(self) -> None:
        """Direct all loggers here: ours from the wanted level up, those of libraries from warnings up."""
        self.writer.start()
        logging.getLogger().addHandler(self._handler)
        logging.getLogger(ROOT).setLevel(self._level)

    def announce_ready(self, addresses: Iterable[object]) -> None:
        """Write the line that says that calls are answered, and where, after everything that was logged before.

        Whatever the format and level are: supervisors and tools wait for it. It is the only line with that word.
        """
        self.writer.put(f"extauthz ready on {', '.join(map(str, addresses))}")

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write out what waits, for at most `seconds`, and leave the loggers as they were."""
        logging.getLogger().removeHandler(self._handler)
        logging.getLogger(ROOT).setLevel(logging.NOTSET)
        self.writer.close(seconds)


class TextFormatter(logging.Formatter):
    """`2026-03-01T12:00:00.123Z WARNING reload: text`, with the stack below where there is one."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return timestamp(record.created)

    def format(self, record: logging.LogRecord) -> str:
        line = f"{timestamp(record.created)} {record.levelname} {short_name(record.name)}: {one_line(record)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: timestamp, severity, logger, message, and exception and `extra={"fields": {...}}` if any."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "timestamp": timestamp(record.created),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))


class StackThrottle:
    """Lets a stack through at most once a second, so that a bug hit by every call does not become a flood."""

    def __init__(self, interval: float = STACK_INTERVAL_SECONDS) -> None:
        self._interval = interval
        self._next = 0.0
        self._held_back = 0

    def admit(self) -> int | None:
        """How many were held back since the last one that was let through; None when this one is held back, too."""
        now = monotonic()
        if now < self._next:
            self._held_back += 1
            return None
        held_back, self._held_back = self._held_back, 0
        self._next = now + self._interval
        return held_back


class _WriterHandler(logging.Handler):
    def __init__(self, writer: LineWriter[str]) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(self.format(record))
        except Exception:
            self.handleError(record)


def timestamp(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short_name(logger: str) -> str:
    """The last part of a logger's name, which is its module's."""
    return logger.rpartition(".")[2]


def one_line(record: logging.LogRecord) -> str:
    """The message with line breaks escaped: one event is one line, whatever a policy or a peer put into it."""
    return record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
