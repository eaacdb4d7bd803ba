"""The query of a path as Envoy reads and rewrites it (`Http::Utility::QueryParamsMulti`).

    query     = piece *( "&" piece )        ; an empty piece at the very end does not count
    piece     = name [ "=" value ]          ; both percent-decoded; "+" is no blank

Everything here is wire text.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

Parameters = list[tuple[str, str]]


def read(path: str) -> Parameters:
    """Names and values, decoded, in their order; a name without `=` has an empty value."""
    query = path.partition("?")[2]
    if not query:
        return []
    pieces = query.split("&")
    if not pieces[-1]:
        pieces.pop()
    parts = (piece.partition("=") for piece in pieces)
    # Most queries hold nothing encoded, and a hostile one is 60 KiB of pieces: no calls for each of them.
    if "%" not in query:
        return [(name, value) for name, _, value in parts]
    return [(_decode(name), _decode(value)) for name, _, value in parts]


def without(path: str, name: str) -> str:
    """The path without a parameter, rewritten as Envoy does: decoded, sorted by name, values of a name in their order.

    Nothing is encoded again, a name without `=` gets one, and an empty query takes the `?` with it.
    """
    kept = sorted((parameter for parameter in read(path) if parameter[0] != name), key=lambda parameter: parameter[0])
    bare = path.partition("?")[0]
    return f"{bare}?{'&'.join(f'{key}={value}' for key, value in kept)}" if kept else bare


def _decode(text: str) -> str:
    if "%" not in text:
        return text
    return unquote_to_bytes(text.encode("latin-1")).decode("latin-1")
