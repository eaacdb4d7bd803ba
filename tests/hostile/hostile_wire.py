"""Mutations of bytes, and of protobuf messages as the wire has them: fields twice, cut, out of order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)
NASTY = (0, 1, 0x7F, 0x80, 0xFF, 0xC0, 0xF5, 0x0A, 0x2E, 0x2F)
BAD_TEXT = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\0", b"\xef\xbb\xbf")
DEEPEST = 12
"""Levels of messages that are looked into; CheckRequests have no more than eight that matter."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number, its wire type, and its value's bytes (without the length of LENGTH)."""

    number: int
    kind: int
    value: bytes

    def serialize(self) -> bytes:
        """The field on the wire."""
        length = varint(len(self.value)) if self.kind == LENGTH else b""
        return varint(self.number << 3 | self.kind) + length + self.value


def varint(value: int, *, pad: int = 0) -> bytes:
    """A number as protobuf writes it; `pad` adds bytes that change nothing."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(pad):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def fields(data: bytes) -> list[Field] | None:
    """The fields of a message, None when the bytes are none (or hold groups, which nobody writes)."""
    found, at = [], 0
    while at < len(data):
        head = _read(data, at)
        if head is None or not head[0] >> 3:
            return None
        (tag, at), kind = head, head[0] & 7
        if kind == VARINT:
            number = _read(data, at)
            if number is None:
                return None
            end = number[1]
        elif kind == LENGTH:
            length = _read(data, at)
            if length is None:
                return None
            at = length[1]
            end = at + length[0]
        elif kind in (FIXED32, FIXED64):
            end = at + (4 if kind == FIXED32 else 8)
        else:
            return None
        if end > len(data):
            return None
        found.append(Field(tag >> 3, kind, data[at:end]))
        at = end
    return found


def _read(data: bytes, at: int) -> tuple[int, int] | None:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return None


# ---- one field changed, somewhere in the tree ------------------------------------------------------------------------


def mutated_message(rng: random.Random, data: bytes, depth: int = 0) -> bytes:
    """The message with one field somewhere in it mutated, and every length around it right again."""
    parts = fields(data)
    if not parts:
        return mutated_bytes(rng, data)
    index = rng.randrange(len(parts))
    one = parts[index]
    if one.kind == LENGTH and len(one.value) > 1 and depth < DEEPEST and rng.random() < 0.75 and fields(one.value):
        whole = [part.serialize() for part in parts]
        whole[index] = Field(one.number, LENGTH, mutated_message(rng, one.value, depth + 1)).serialize()
        return b"".join(whole)
    whole = [part.serialize() for part in parts]
    rng.choice(_FIELD_MUTATIONS)(rng, whole, index, one)
    return b"".join(whole)


def _twice(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    copy = Field(one.number, one.kind, mutated_bytes(rng, one.value) if rng.random() < 0.5 else one.value)
    whole.insert(rng.randrange(len(whole) + 1), copy.serialize())


def _dropped(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    del whole[index]


def _other_type(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    whole[index] = varint(one.number << 3 | rng.randrange(8)) + whole[index][1:]


def _other_number(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    number = rng.choice((0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 15, 16, 2**29 - 1, 2**29, 2**40))
    whole[index] = Field(number, one.kind, one.value).serialize()


def _other_value(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    whole[index] = Field(one.number, one.kind, mutated_bytes(rng, one.value)).serialize()


def _bad_text(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    at = rng.randrange(len(one.value) + 1)
    whole[index] = Field(one.number, LENGTH, one.value[:at] + rng.choice(BAD_TEXT) + one.value[at:]).serialize()


def _wrong_length(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    length = rng.choice((0, len(one.value) + 1, max(0, len(one.value) - 1), 2**31 - 1, 2**32, 2**63, 2**64 - 1))
    whole[index] = varint(one.number << 3 | LENGTH) + varint(length) + one.value


def _padded(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    pad = rng.choice((1, 2, 4, 8, 12))
    length = varint(len(one.value), pad=pad) if one.kind == LENGTH else b""
    whole[index] = varint(one.number << 3 | one.kind, pad=rng.choice((0, pad))) + length + one.value


def _endless_varint(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    whole[index] = varint(one.number << 3) + b"\xff" * rng.randrange(1, 12)


def _group(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    depth = rng.choice((1, 1, 2, 90, 101, 2000))
    opened = varint(one.number << 3 | START_GROUP) * depth
    closed = varint(one.number << 3 | END_GROUP) * (depth - (rng.random() < 0.2))
    whole.insert(index, opened + (whole[index] if rng.random() < 0.5 else b"") + closed)


def _shuffled(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    rng.shuffle(whole)


def _many_times(rng: random.Random, whole: list[bytes], index: int, one: Field) -> None:
    if rng.random() < 0.05:
        whole[index:index] = [whole[index]] * (100_000 // max(20, len(whole[index])))
    else:
        whole[index:index] = [whole[index]] * rng.randrange(1, 20)


_FIELD_MUTATIONS: tuple[Callable[[random.Random, list[bytes], int, Field], None], ...] = (
    _twice, _dropped, _other_type, _other_number, _other_value, _bad_text, _wrong_length, _padded, _endless_varint,
    _group, _shuffled, _many_times,
)  # fmt: skip


# ---- bytes -----------------------------------------------------------------------------------------------------------


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """The bytes with a few of them changed, taken out, put in, cut off or said again."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        _mutate_once(rng, out)
    return bytes(out)


def _mutate_once(rng: random.Random, out: bytearray) -> None:
    at = rng.randrange(len(out) + 1)
    kind = rng.randrange(7)
    if kind == 0 or not out:
        out[at:at] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 1:
        out[at % len(out)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        out[at % len(out)] = rng.choice(NASTY)
    elif kind == 3:
        del out[at : at + rng.randrange(1, 9)]
    elif kind == 4:
        del out[at:]
    elif kind == 5:
        piece = out[at : at + rng.randrange(1, 64)]
        to = rng.randrange(len(out) + 1)
        out[to:to] = piece
    else:
        out[at % len(out)] = rng.randrange(256)
