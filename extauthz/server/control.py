"""How the parent talks to its workers: commands with replies over a socket pair, several at a time.

Both ends run code of this package, so messages are pickled. A worker answers each command in a thread of its own: a
reload that compiles for seconds must not keep a scrape waiting.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

from extauthz.errors import ExtAuthzError, PolicyError, UsageError

_log = logging.getLogger(__name__)

_FAREWELL = -1


class WorkerGone(ExtAuthzError):
    """The process at the other end has ended."""


class Caller:
    """The parent's end. `gone` is called, in the thread that reads replies, when the worker has closed its end.

    `farewell` is what the worker said last, unasked; None if it did not come to that.
    """

    def __init__(self, end: socket.socket, gone: Callable[[], None]) -> None:
        self.farewell: Any = None
        self._connection = Connection(end.detach())
        self._gone = gone
        self._numbers = count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = Lock()
        self._closed = False
        Thread(target=self._read, name="worker-replies", daemon=True).start()

    def ask(self, command: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Run a command in the worker and return its result.

        Raises WorkerGone, TimeoutError after `seconds`, and the PolicyError or UsageError that the command raised.
        """
        number, future = next(self._numbers), Future[Any]()
        with self._lock:
            if self._closed:
                raise WorkerGone("the worker has ended")
            self._waiting[number] = future
            try:
                self._connection.send((number, command, arguments))
            except OSError:
                del self._waiting[number]
                raise WorkerGone("the worker has ended") from None
        try:
            return future.result(seconds)
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    @property
    def closed(self) -> bool:
        """Whether the line is dead, whoever ended it."""
        return self._closed

    def close(self) -> None:
        """Hang up, which tells the worker to end."""
        with self._lock:
            if not self._closed:
                self._closed = True
                # Also wakes the thread that reads; it closes the connection.
                with socket.socket(fileno=self._connection.fileno()) as end:
                    end.shutdown(socket.SHUT_RDWR)
                    end.detach()

    def _read(self) -> None:
        try:
            while True:
                number, error, result = self._connection.recv()
                if number == _FAREWELL:
                    self.farewell = result
                    continue
                with self._lock:
                    future = self._waiting.get(number)
                if future is None:
                    continue  # Asked with a limit of time that is over.
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(_error(error, result))
        except (OSError, EOFError):
            pass
        with self._lock:
            self._closed = True
            waiting = list(self._waiting.values())
            self._connection.close()
        for future in waiting:
            future.set_exception(WorkerGone("the worker has ended"))
        self._gone()


class Responder:
    """The worker's end."""

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self._lock = Lock()

    def receive(self) -> tuple[int, str, tuple[Any, ...]] | None:
        """The next command, None when the parent has hung up."""
        try:
            received: tuple[int, str, tuple[Any, ...]] = self._connection.recv()
        except (OSError, EOFError):
            return None
        return received

    def answer(self, number: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Run `function` and send what it returns, or how it failed."""
        reply: tuple[int, str | None, Any]
        try:
            reply = (number, None, function(*arguments))
        except PolicyError as error:
            reply = (number, "policy", error.problems)
        except ExtAuthzError as error:
            reply = (number, "usage", str(error))
        except Exception as error:
            _log.exception("a command of the parent failed")
            reply = (number, "internal", f"{type(error).__name__}: {error}")
        self._send(reply)

    def farewell(self, last_words: Any) -> None:
        """Say something unasked, last of all."""
        self._send((_FAREWELL, None, last_words))

    def _send(self, reply: tuple[int, str | None, Any]) -> None:
        with self._lock:
            try:
                self._connection.send(reply)
            except OSError:
                return  # The parent has gone; `receive` sees it, too.

    def serve(self, run: Callable[..., Any]) -> None:
        """Answer each command with `run(command, *arguments)` until the parent hangs up."""
        while (received := self.receive()) is not None:
            number, command, arguments = received
            Thread(target=self.answer, args=(number, run, (command, *arguments)), daemon=True).start()


def _error(kind: str, detail: Any) -> Exception:
    if kind == "policy":
        return PolicyError(detail)
    if kind == "usage":
        return UsageError(detail)
    return RuntimeError(detail)
