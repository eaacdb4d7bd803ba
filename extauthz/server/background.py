"""A thread that works off what others hand over without ever making them wait: bounded, and it counts what it drops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from threading import Event, Thread
from time import sleep
from typing import Generic, TypeVar

QUEUE_ITEMS = 10_000
"""Items that wait; further ones are dropped and counted."""

BATCH_ITEMS = 32
"""Items worked off at once. Few, so that the interpreter is not kept from those who answer calls for long."""

GATHER_SECONDS = 0.02
"""How long items of which there are thousands a second are gathered: waking the thread for each would cost more."""

Item = TypeVar("Item")


class Background(ABC, Generic[Item]):
    """Takes items from any thread; `work` and `end` run in the thread of its own. `dropped` counts items.

    Items are worked off as they come, or, with `gather`, after so many seconds together with what came meanwhile.
    """

    def __init__(self, *, name: str, capacity: int = QUEUE_ITEMS, gather: float = 0.0) -> None:
        self.dropped = 0
        self._gather = gather
        self._capacity = capacity
        self._queue: deque[Item] = deque()
        self._idle = False
        self._wake = Event()
        self._closing = False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over one item; it is dropped when the thread is behind."""
        if len(self._queue) >= self._capacity:
            self.dropped += 1
            return
        self._queue.append(item)
        if self._idle:
            self._wake.set()

    def close(self, seconds: float) -> None:
        """Work off what waits, for at most `seconds`; a thread that is stuck is left behind (it is a daemon)."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    @abstractmethod
    def work(self, batch: list[Item]) -> None:
        """Do what is to be done with some items, in the order in which they came."""

    def end(self) -> None:
        """Called once, after the last batch."""
        return

    def _run(self) -> None:
        while self._wait():
            while self._queue:
                self.work([self._queue.popleft() for _ in range(min(BATCH_ITEMS, len(self._queue)))])
        self.end()

    def _wait(self) -> bool:
        """Until there are items to work off; False when the end was reached."""
        self._wake.clear()
        # In this order: whoever adds an item after we have looked sees that we are idle.
        self._idle = True
        if not self._queue and not self._closing:
            self._wake.wait()
        self._idle = False
        if self._gather and not self._closing:
            sleep(self._gather)
        return bool(self._queue) or not self._closing
