"""A request while authentication works on it: what it has removed and written is seen by whatever looks next.

Envoy evaluates rules on the live header map, and what a rule did stays even when that rule then fails. This is that
map: the original, which is never touched, and the changes over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauthz.authn import query
from extauthz.envoy_http import JOINED_HEADERS
from extauthz.request import NO_LINES, Changes, Request

_PATH: Final = ":path"


class LiveRequest:
    """The request as it is now. Names are lower case, values wire text."""

    __slots__ = ("_headers", "_path", "original", "path")

    def __init__(self, original: Request) -> None:
        self.original = original
        self.path = self._path = original.path
        self._headers: dict[str, Sequence[str]] = {}

    def lines(self, name: str) -> Sequence[str]:
        changed = self._headers.get(name)
        if changed is not None:
            return changed
        return (self.path,) if name == _PATH else self.original.lines(name)

    def remove(self, name: str) -> None:
        """Remove all lines of a header, or see to it that there are none."""
        self._headers[name] = NO_LINES

    def add(self, name: str, value: str) -> None:
        """Add a line, or to the line of a header that Envoy keeps in one."""
        known = self.lines(name)
        if known and name in JOINED_HEADERS:
            self._headers[name] = (",".join(line for line in (*known, value) if line),)
        else:
            self._headers[name] = (*known, value)

    def remove_parameter(self, name: str) -> None:
        """Remove all values of a query parameter, which rewrites the query."""
        self.path = query.without(self.path, name)

    def changes(self) -> Changes:
        """What differs from the original."""
        return Changes(dict(self._headers), self.path if self.path != self._path else None)
