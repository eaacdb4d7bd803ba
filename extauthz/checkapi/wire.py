"""The protobuf wire format, as far as answers need it: length-delimited fields, and `google.protobuf.Struct`.

An answer that is not remembered is written anew for a request, and filling message objects field by field costs several
times what putting the bytes together does. The bytes are those of the protobuf codec:

    field  = tag size payload                  ; tag = number << 3 | 2, size a varint (protobuf.dev, "Encoding")
    Struct = *field(1, Entry)
    Entry  = field(1, name) field(2, Value)    ; both are written even when empty
    Value  = null / number / bool / field(3, UTF-8) / field(5, Struct) / field(6, ListValue)
    ListValue = *field(1, Value)
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

try:
    from extauthz.checkapi import _wire
except ImportError:  # The extension is optional.
    _wire = None  # type: ignore[assignment]

_SIZES: Final = tuple(bytes((size,)) for size in range(0x80))
_NULL: Final = b"\x08\x00"
_DOUBLE: Final = Struct("<cd").pack
_FALSE: Final = b"\x20\x00"
_TRUE: Final = b"\x20\x01"

STRUCT_LEVELS: Final = 3
"""Messages that an object within an object nests: the Entry, its Value, the Struct."""

LIST_LEVELS: Final = 2
"""Messages that a list nests: the ListValue, its Value."""


def varint(number: int) -> bytes:
    """A number, not negative, seven bits to a byte, the low ones first."""
    if number < 0x80:
        return _SIZES[number]
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def sized(payload: bytes) -> bytes:
    """A payload behind its size."""
    size = len(payload)
    return (_SIZES[size] if size < 0x80 else varint(size)) + payload


class _TooDeep(Exception):
    pass


def struct_in_python(values: dict[str, Any], levels: int) -> bytes | None:
    """A Struct of None, bool, numbers, str, lists, tuples and dicts.

    None when a member nests more than `levels` messages deep. Raises TypeError for any other value.
    """
    try:
        return _members(values, levels)
    except _TooDeep:
        return None


struct = struct_in_python if _wire is None else _wire.struct


def _members(values: dict[str, Any], levels: int) -> bytes:
    fields: list[bytes] = []
    for name, value in values.items():
        entry = b"\x0a" + sized(name.encode()) + b"\x12" + sized(_value(value, levels))
        fields.append(b"\x0a" + sized(entry))
    return b"".join(fields)


def _value(value: Any, levels: int) -> bytes:
    if isinstance(value, str):
        return b"\x1a" + sized(value.encode())
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, float | int):
        return _DOUBLE(b"\x11", float(value))
    if isinstance(value, list | tuple):
        if levels < LIST_LEVELS:
            raise _TooDeep
        levels -= LIST_LEVELS
        return b"\x32" + sized(b"".join([b"\x0a" + sized(_value(item, levels)) for item in value]))
    if isinstance(value, dict):
        if levels < STRUCT_LEVELS:
            raise _TooDeep
        return b"\x2a" + sized(_members(value, levels - STRUCT_LEVELS))
    raise TypeError(f"a Struct cannot hold a {type(value).__name__}")
