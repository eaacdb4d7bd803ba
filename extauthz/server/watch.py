"""Notices that policy files have changed: edited, replaced, removed and made again, or swapped behind a symbolic link.

File events are only a hint to look: what counts is whether the files look different and have stopped changing. So
nothing depends on which events an editor, a ConfigMap volume or a network file system produces, and where there are
none at all, looking now and then is enough.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event, Thread
from typing import Any

from extauthz.istio.load import SUFFIXES

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.3
"""How long the files must have stayed the same before they are read: editors and ConfigMaps write in several steps."""

MAX_SETTLE_SECONDS = 5.0
LOOK_SECONDS = 0.05
POLL_SECONDS = 1.0
"""How often to look where there are no events, and how long a change in the moment of beginning to watch is missed."""

STEP_MILLISECONDS = 100
"""How long events are gathered."""

EVENT_POLLS = 10
"""After how many such intervals to look although no event came."""


Look = dict[str, tuple[int, int, int, int]]


class Watcher:
    """Calls `changed` in a thread of its own whenever the files or directories at `paths` have become different."""

    def __init__(self, paths: Sequence[str], changed: Callable[[], None], *, settle: float = SETTLE_SECONDS) -> None:
        self._paths = paths
        self._changed = changed
        self._settle = settle
        self._seen = look(paths)
        self._places: list[str] = []
        self._events: Iterator[Any] = iter(())
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; does not wait for a `changed` that is running."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            while look(self._paths) != self._seen:
                self._seen = self._settled()
                if self._stopped.is_set():
                    return
                self._changed()
            self._wait()

    def _wait(self) -> None:
        """Until something may have happened."""
        places = directories(self._paths)
        if not places:
            self._stopped.wait(POLL_SECONDS)
            return
        try:
            if places != self._places:
                self._events, self._places = _events(places, self._stopped), places
                # The first interval begins with the watching itself: what happened just before is seen after it.
                next(self._events, None)
                return
            for _ in range(EVENT_POLLS):
                if next(self._events, None):
                    return
        except (OSError, RuntimeError) as error:
            _log.warning("no file events, looking every %g s instead: %s", POLL_SECONDS, error)
            self._places = []
            self._stopped.wait(POLL_SECONDS)

    def _settled(self) -> Look:
        """Wait until the files stay as they are, and return how they look then."""
        began = time.monotonic()
        seen, since = look(self._paths), time.monotonic()
        while not self._stopped.wait(LOOK_SECONDS):
            now = look(self._paths)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= self._settle:
                break
            if time.monotonic() - began >= MAX_SETTLE_SECONDS:
                break
        return seen


def look(paths: Iterable[str]) -> Look:
    """Every policy file at `paths` with what changes when it does: modification time, size, inode, device."""
    found: Look = {}
    for path in paths:
        for file in _files(path):
            try:
                state = os.stat(file)
            except OSError:
                found[file] = (0, 0, 0, 0)
            else:
                found[file] = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_dev)
    return found


def directories(paths: Iterable[str]) -> list[str]:
    """The directories whose events tell that `paths` may have changed; those that exist.

    A path is watched from the directory that holds it, since it may be replaced as a whole, and where it really is, as
    the target of a symbolic link may change, too; of a directory, everything below it.
    """
    places: dict[str, None] = {}
    for path in paths:
        real = os.path.realpath(path)
        for place in (os.path.dirname(os.path.abspath(path)), os.path.dirname(real)):
            if os.path.isdir(place):
                places.setdefault(place)
        if os.path.isdir(real):
            places.update((directory, None) for directory, _ in _walk(real))
    return list(places)


def _events(places: Sequence[str], stopped: Event) -> Iterator[Any]:
    # Imported here: it takes time that starting should not, and this thread has it.
    from watchfiles import watch

    # Directories one by one, not recursively: the parent of a policy file may be /tmp. The settling is ours, so events
    # are passed on as they come, but for a step: at the end of each the thread takes the interpreter from the calls.
    return watch(
        *places,
        watch_filter=None,
        debounce=STEP_MILLISECONDS,
        step=STEP_MILLISECONDS,
        stop_event=stopped,
        rust_timeout=int(POLL_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
        recursive=False,
        ignore_permission_denied=True,
    )


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for directory, names in _walk(path):
        for name in names:
            if name.endswith(SUFFIXES):
                yield os.path.join(directory, name)


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """Each directory from `top` down with the names of its files; symbolic links are followed, each directory once."""
    known: set[tuple[int, int]] = set()
    for directory, below, names in os.walk(top, followlinks=True):
        try:
            state = os.stat(directory)
        except OSError:
            below.clear()
            continue
        if (state.st_dev, state.st_ino) in known:
            below.clear()
            continue
        known.add((state.st_dev, state.st_ino))
        yield directory, names
