"""Where an HTTP/1.1 answer ends: its status is kept, its body is not. RFC 9112 section 6.3."""

from __future__ import annotations

_HEAD_END = b"\r\n\r\n"
_LONGEST_HEAD = 64 * 1024
_NO_BODY = (204, 304)


class BadAnswer(Exception):
    """What came is no HTTP/1.1 answer."""


class AnswerReader:
    """Reads the answers of one connection, one after the other. `head_only`: the next one answers a HEAD request."""

    __slots__ = ("_chunked", "_kept", "_left", "_to_end", "head_only", "keep_alive", "status")

    def __init__(self) -> None:
        self._kept = b""
        self.status = 0
        self.keep_alive = True
        self.head_only = False
        self._reset()

    def _reset(self) -> None:
        self._left = -1
        self._chunked = False
        self._to_end = False

    def feed(self, data: bytes) -> bool:
        """Read on; whether the answer is complete (`status` says which it was). Raises BadAnswer."""
        self._kept += data
        while self._left < 0 and not self._chunked and not self._to_end:
            end = self._kept.find(_HEAD_END)
            if end < 0:
                if len(self._kept) > _LONGEST_HEAD:
                    raise BadAnswer("a head without an end")
                return False
            head, self._kept = self._kept[:end], self._kept[end + len(_HEAD_END) :]
            self._read_head(head)
        if self._chunked:
            return self._read_chunks()
        if self._to_end:
            self._kept = b""
            return False
        return self._read_length()

    def end(self) -> bool:
        """The peer has closed; whether that completed an answer."""
        complete = self._to_end
        self.keep_alive = False
        self._reset()
        return complete

    def _read_head(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        version, _, rest = lines[0].partition(b" ")
        if version[:7] != b"HTTP/1." or not rest[:3].isdigit():
            raise BadAnswer("no status line")
        self.status = int(rest[:3])
        if self.status == 101:
            raise BadAnswer("switching protocols was not asked for")
        if self.status < 200:
            return
        length = self._read_fields(version, lines[1:])
        if self.head_only or self.status in _NO_BODY:
            self._left, self._chunked = 0, False
        elif not self._chunked:
            self._left, self._to_end = length, length < 0

    def _read_fields(self, version: bytes, lines: list[bytes]) -> int:
        """Takes in what says how long the body is and whether the connection stays; gives the length, -1 for none."""
        self.keep_alive = version != b"HTTP/1.0"
        length = -1
        for line in lines:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"content-length":
                try:
                    length = int(value)
                except ValueError:
                    raise BadAnswer("a length that is no number") from None
            elif name == b"transfer-encoding":
                self._chunked = b"chunked" in value.lower()
            elif name == b"connection":
                words = [word.strip() for word in value.lower().split(b",")]
                if b"close" in words:
                    self.keep_alive = False
                elif b"keep-alive" in words:
                    self.keep_alive = True
        return length

    def _read_length(self) -> bool:
        taken = min(self._left, len(self._kept))
        self._left -= taken
        self._kept = self._kept[taken:]
        if self._left:
            return False
        self._reset()
        return True

    def _read_chunks(self) -> bool:
        """`_left` is what is left of a chunk with the line end behind it, -1 before a size line, -2 in the trailers."""
        while True:
            if self._left >= 0:
                taken = min(self._left, len(self._kept))
                self._left -= taken
                self._kept = self._kept[taken:]
                if self._left:
                    return False
                self._left = -1
            line, end, rest = self._kept.partition(b"\r\n")
            if not end:
                if len(self._kept) > _LONGEST_HEAD:
                    raise BadAnswer("a line without an end")
                return False
            self._kept = rest
            if self._left == -2:
                if line:
                    continue
                self._reset()
                return True
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadAnswer("a chunk size that is no number") from None
            self._left = size + 2 if size else -2
