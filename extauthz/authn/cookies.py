"""Cookies as Envoy reads them for `fromCookies` (`Http::Utility::parseCookies`).

line    = piece *( ";" piece )
piece   = *" " name "=" value          ; a piece without "=" is skipped; nothing is decoded or trimmed behind
value   = DQUOTE text DQUOTE / text    ; the quotes around a whole value do not count
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


def read(lines: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """The values of the cookies in `names`, each from its first occurrence over all cookie header lines."""
    found: dict[str, str] = {}
    for line in lines:
        for piece in line.split(";"):
            name, equals, value = piece.partition("=")
            name = name.lstrip(" ")
            if not equals or name not in names or name in found:
                continue
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = value[1:-1]
            found[name] = value
    return found
