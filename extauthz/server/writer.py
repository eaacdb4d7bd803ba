"""A thread that writes lines so that nobody else waits for a disk, a pipe or a terminal: bounded, and it counts drops.

The log and the decision log both stand on it. What a line looks like is theirs; where it goes is a sink of `sinks`.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

from extauthz.server.sinks import Sink

QUEUE_ITEMS = 10_000
"""Items that wait for the writer; further ones are dropped and counted."""

BATCH_ITEMS = 256

RETRY_SECONDS = 1.0
"""How long a sink that failed (a full disk, a FIFO without a reader) is left alone before the next attempt."""

Item = TypeVar("Item")


class LineWriter(Generic[Item]):
    """Takes items from any thread without ever making it wait, and writes the lines that `render` makes of them.

    `written` and `dropped` count items; `error` is the last thing that went wrong with the sink, None when all is well.
    """

    def __init__(self, sink: Sink, render: Callable[[Item], bytes], *, name: str, capacity: int = QUEUE_ITEMS) -> None:
        self.written = 0
        self.dropped = 0
        self.error: str | None = None
        self._sink = sink
        self._render = render
        self._capacity = capacity
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._retry_at = 0.0
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over one item; it is dropped when the writer is behind."""
        if self._queue.qsize() < self._capacity:
            self._queue.put(item)
        else:
            self.dropped += 1

    def close(self, seconds: float) -> None:
        """Write what waits, for at most `seconds`; a writer that is stuck is left behind (its thread is a daemon)."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[Item] = []
            ended = not self._take(batch)
            if batch:
                self._write(batch)
        self._sink.close()

    def _take(self, batch: list[Item]) -> bool:
        """Wait for an item and add what else is there; False when the end was reached."""
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == BATCH_ITEMS:
                return True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return True
        return False

    def _write(self, batch: list[Item]) -> None:
        if monotonic() < self._retry_at:
            self.dropped += len(batch)
            return
        try:
            self._sink.write(b"".join(map(self._render, batch)))
        except OSError as error:
            self.dropped += len(batch)
            self.error = error.strerror or str(error)
            self._retry_at = monotonic() + RETRY_SECONDS
        else:
            self.written += len(batch)
            self.error = None
