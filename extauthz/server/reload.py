"""Replacing the policies while calls are answered: all or nothing, one at a time, and the outcome for all to see."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread

from extauthz.errors import ExtAuthzError, PolicyError, Severity
from extauthz.server.metrics import NO_LABELS, Snapshot

_log = logging.getLogger(__name__)

MAX_LOGGED_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reload went. `at` is Unix time; `problems` says what is wrong, `file:line: field: reason` each."""

    succeeded: bool
    at: float
    cause: str
    summary: str = ""
    problems: tuple[str, ...] = ()


class Reloads:
    """Runs reloads, whatever asks for them, one at a time. `last` is the latest outcome, None before the first."""

    def __init__(self, reload: Callable[[], str]) -> None:
        self.last: Outcome | None = None
        self._reload = reload
        self._counts = {"success": 0, "error": 0}
        self._lock = Lock()
        self._asked = Event()
        self._closed = False
        self._thread = Thread(target=self._run, name="reload", daemon=True)
        self._cause = ""

    def start(self) -> None:
        """Take requests."""
        self._thread.start()

    def request(self, cause: str) -> None:
        """Have a reload done soon, without waiting for it."""
        self._cause = cause
        self._asked.set()

    def now(self, cause: str) -> Outcome:
        """Reload now, or after the one that is running, and return how it went."""
        with self._lock:
            if self._closed:
                return Outcome(False, time.time(), cause, problems=("the server is shutting down",))
            began = time.perf_counter()
            outcome = self._outcome(cause)
            self.last = outcome
            self._counts["success" if outcome.succeeded else "error"] += 1
        self._log(outcome, time.perf_counter() - began)
        return outcome

    def close(self) -> None:
        """Begin no further reload."""
        self._closed = True
        self._asked.set()

    def snapshot(self) -> Snapshot:
        """The counts by result, and whether the last reload succeeded (1 before the first, too)."""
        return {
            "policy_reload": {(result,): count for result, count in self._counts.items()},
            "policy_last_reload_successful": {NO_LABELS: float(self.last is None or self.last.succeeded)},
        }

    def _run(self) -> None:
        while not self._closed:
            self._asked.wait()
            self._asked.clear()
            if not self._closed:
                self.now(self._cause)

    def _outcome(self, cause: str) -> Outcome:
        try:
            return Outcome(True, time.time(), cause, summary=self._reload())
        except PolicyError as error:
            errors = [str(problem) for problem in error.problems if problem.severity is Severity.ERROR]
            return Outcome(False, time.time(), cause, problems=tuple(errors))
        except (ExtAuthzError, OSError) as error:
            return Outcome(False, time.time(), cause, problems=(str(error),))
        except Exception as error:
            # A bug must not end the reloading of policies for good.
            _log.exception("reloading the policies failed in an unexpected way")
            return Outcome(False, time.time(), cause, problems=(f"{type(error).__name__}: {error}",))

    @staticmethod
    def _log(outcome: Outcome, seconds: float) -> None:
        if outcome.succeeded:
            _log.info("reloaded (%s) in %.0f ms: %s", outcome.cause, seconds * 1e3, outcome.summary)
            return
        shown = "; ".join(outcome.problems[:MAX_LOGGED_PROBLEMS])
        more = len(outcome.problems) - MAX_LOGGED_PROBLEMS
        _log.error(
            "reload failed (%s), the policies before it stay in force: %s%s",
            outcome.cause,
            shown,
            f"; and {more} more" if more > 0 else "",
        )
