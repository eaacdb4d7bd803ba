"""A thread that works off what others hand over without ever making them wait: bounded, and it counts what it drops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

QUEUE_ITEMS = 10_000
"""Items that wait; further ones are dropped and counted."""

BATCH_ITEMS = 256

Item = TypeVar("Item")


class Background(ABC, Generic[Item]):
    """Takes items from any thread; `work` and `end` run in the thread of its own. `dropped` counts items."""

    def __init__(self, *, name: str, capacity: int = QUEUE_ITEMS) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over one item; it is dropped when the thread is behind."""
        if self._queue.qsize() < self._capacity:
            self._queue.put(item)
        else:
            self.dropped += 1

    def close(self, seconds: float) -> None:
        """Work off what waits, for at most `seconds`; a thread that is stuck is left behind (it is a daemon)."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)

    @abstractmethod
    def work(self, batch: list[Item]) -> None:
        """Do what is to be done with some items, in the order in which they came."""

    def end(self) -> None:
        """Called once, after the last batch."""
        return

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[Item] = []
            ended = not self._take(batch)
            if batch:
                self.work(batch)
        self.end()

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
