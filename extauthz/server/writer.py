"""Writes lines so that nobody waits for a disk, a pipe or a terminal. The log and the decision log both stand on it.

What a line looks like is theirs; where it goes is a sink of `sinks`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Generic

from extauthz.server.background import QUEUE_ITEMS, Background, Item
from extauthz.server.sinks import Sink

RETRY_SECONDS = 1.0
"""How long a sink that failed (a full disk, a FIFO without a reader) is left alone before the next attempt."""


class LineWriter(Background[Item], Generic[Item]):
    """Writes the lines that `render` makes of items.

    `written` counts items; `error` is the last thing that went wrong with the sink, None when all is well.
    """

    def __init__(
        self,
        sink: Sink,
        render: Callable[[Item], bytes],
        *,
        name: str,
        capacity: int = QUEUE_ITEMS,
        gather: float = 0.0,
    ) -> None:
        super().__init__(name=name, capacity=capacity, gather=gather)
        self.written = 0
        self.error: str | None = None
        self._sink = sink
        self._render = render
        self._retry_at = 0.0

    def work(self, batch: list[Item]) -> None:
        """Write a batch at once, or drop it while the sink is left alone."""
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

    def end(self) -> None:
        """Give up the sink."""
        self._sink.close()
