"""What a plain (unquoted) YAML scalar is: text, number, boolean or nothing, as Kubernetes decides it.

Kubernetes reads YAML 1.1 with its own corrections: `yes` and `on` are booleans, `0x1F`, `0b1`, `0o17` and `017` are
integers, `12:30:45` and dates are text. Only this grammar is here; structure is `yaml_reader`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MAY_NOT_BE_TEXT = frozenset("0123456789+-.~yYnNtTfFoO")
"""The first characters of everything that is not text; the empty scalar, which is null, has none."""

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {
    spelling: value
    for value, words in ((True, ("y", "yes", "true", "on")), (False, ("n", "no", "false", "off")))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}
_NOT_FINITE = frozenset(
    sign + dot for sign in ("", "+", "-") for dot in (".inf", ".Inf", ".INF")
) | {".nan", ".NaN", ".NAN"}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_MAX_DIGITS = 400
"""No number of a resource is longer; reading one takes time that grows with the square of its digits."""


class NotAValue(Exception):
    """The scalar is something that JSON, and so Kubernetes, has no form for; the text says what."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain scalar that is a number or a boolean, with the text that stands in the file."""

    text: str
    value: bool | int | float

    def __str__(self) -> str:
        kind = "boolean" if isinstance(self.value, bool) else "number"
        return f"the {kind} {self.text}"


def resolve_plain(text: str) -> str | Plain | None:
    """The value of a plain scalar: text, a number or boolean, or None for null. Raises NotAValue for infinities."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return Plain(text, _BOOLEANS[text])
    if text in _NOT_FINITE:
        raise NotAValue(f"{text} is a number that JSON cannot hold; put text in quotes")
    digits = text if text[0] == "." else text.replace("_", "")
    whole = _INTEGER.fullmatch(digits)
    if not whole and not _FLOAT.fullmatch(digits):
        return text
    number = math.inf if len(digits) > _MAX_DIGITS else _integer(digits) if whole else float(digits)
    if number in (math.inf, -math.inf):
        raise NotAValue(f"{text[:40]} is too large for a number; put text in quotes")
    return Plain(text, number)


def _integer(digits: str) -> int:
    sign, magnitude = (digits[0], digits[1:]) if digits[0] in "+-" else ("", digits)
    if len(magnitude) > 1 and magnitude[0] == "0" and magnitude[1].isdigit():
        magnitude = "0o" + magnitude
    return int(sign + magnitude, 0)
