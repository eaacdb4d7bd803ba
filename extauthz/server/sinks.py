"""Where lines go: a standard stream, or a file that rotates by size and survives being moved away.

Sinks belong to one writer thread and may block it. Several processes may append to one file: each batch is a single
write at the end of the file, and rotation is done by whoever holds the file's lock.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from typing import Protocol


class Sink(Protocol):
    """Takes whole lines."""

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises OSError, after which none or a part of it may have been written."""
        ...

    def close(self) -> None:
        """Give up what is open."""
        ...


class StreamSink:
    """A file descriptor that somebody else opened and closes: stdout or stderr."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = _Lines()

    def write(self, data: bytes) -> None:
        self._lines.write(self._descriptor, data)

    def close(self) -> None:
        return


class FileSink:
    """A file that is opened when first written to, for appending.

    When it has grown past `max_bytes` (0: never) it becomes `PATH.1`, what was `PATH.1` becomes `PATH.2` and so on, and
    at most `keep` old ones stay. A file that was moved or removed by others (logrotate) is opened anew. A FIFO that
    nobody reads cannot be opened: that is an error like a full disk. New files have mode 0640.
    """

    def __init__(self, path: str, *, max_bytes: int = 0, keep: int = 5) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor = -1
        self._lines = _Lines()

    def write(self, data: bytes) -> None:
        descriptor = self._current()
        self._lines.write(descriptor, data)
        if self._max_bytes and os.fstat(descriptor).st_size >= self._max_bytes:
            self._rotate(descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _current(self) -> int:
        if self._descriptor >= 0 and not self._is_at_path(self._descriptor):
            self.close()
        if self._descriptor < 0:
            # Without O_NONBLOCK a FIFO would keep us here until somebody opens its other end; writing may block.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open(self._path, flags, 0o640)
            os.set_blocking(self._descriptor, True)
        return self._descriptor

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self, descriptor: int) -> None:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if self._is_at_path(descriptor):  # Otherwise another process has rotated it while we waited for the lock.
            for number in range(self._keep, 0, -1):
                older = self._path if number == 1 else f"{self._path}.{number - 1}"
                with suppress(FileNotFoundError):
                    os.replace(older, f"{self._path}.{number}")
            if self._keep == 0:
                os.unlink(self._path)
        self.close()


class _Lines:
    """Writes whole lines; a line that was cut short by an error is ended before the next one begins."""

    def __init__(self) -> None:
        self._torn = False

    def write(self, descriptor: int, data: bytes) -> None:
        view = memoryview(b"\n" + data if self._torn else data)
        while view:
            written = os.write(descriptor, view)
            self._torn = view[written - 1] != ord("\n")
            view = view[written:]
