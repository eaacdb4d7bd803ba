"""JSON as protobuf reads a `google.protobuf.Struct`: what Envoy makes of token headers, payloads and key sets.

    text    = space value space                    ; UTF-8 without byte order mark
    value   = object / array / string / number / "true" / "false" / "null"
    object  = "{" [ member *( "," member ) [ "," ] ] "}"
    member  = ( string / word ) ":" value          ; names differ within an object, after unescaping
    word    = ( letter / "_" ) *( letter / digit / "_" )        ; but not true, false or null
    array   = "[" [ value *( "," value ) [ "," ] ] "]"
    string  = DQUOTE *character DQUOTE / "'" *character "'"     ; raw control characters may stand in it
    escape  = "\\" ( DQUOTE / "'" / "\\" / "/" / "b" / "f" / "n" / "r" / "t" )
            / "\\" ( "u" / "U" ) 4HEXDIG           ; but no surrogate by itself
            / "\\" ( "u" / "U" ) high-surrogate space "\\u" low-surrogate
    number  = RFC 8259's, within the range of a double          ; NaN and Infinity are not there
    space   = *( " " / TAB / LF / CR )             ; between tokens

At most `MAX_JSON_DEPTH` levels. Strict JSON is read by the C scanner of the standard library, with hooks for what it is
laxer about. What it refuses may still be in the grammar above: then lenient spellings are rewritten to strict ones and
the result is read. Both take linear time, and little of it in Python, since anybody may send 60 KiB of this.
"""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final, Never

from extauthz.authn.limits import MAX_JSON_DEPTH


class InvalidJson(ValueError):
    """The bytes are not in the grammar."""


def parse(data: bytes) -> Any:
    """The value that `data` stands for: None, bool, float, str, list, dict. Numbers are always floats.

    Raises InvalidJson.
    """
    few_digits = len(data) < 309 or _DIGITS_BEYOND_DOUBLE not in data.translate(_DIGITS_TO_ZEROS)
    scanner = _QUICK if few_digits else _CAREFUL
    try:
        text = data.decode("utf-8")
        # A long text is rewritten first, so that a hostile one is not read twice; and the scanner would let a surrogate
        # stand by itself.
        if len(text) < _LONG and not _ESCAPED_SURROGATE(text):
            try:
                return _read_strictly(text, scanner)
            except JSONDecodeError:
                pass
        return _read_strictly(_rewrite(text), scanner)
    except (UnicodeDecodeError, JSONDecodeError, RecursionError):
        raise InvalidJson from None


def parse_object(data: bytes) -> dict[str, Any]:
    """The members of a top-level Struct; `null` stands for an empty one. Raises InvalidJson."""
    value = parse(data)
    if type(value) is dict:
        return value
    if value is None:
        return {}
    raise InvalidJson


# --- Strict spellings ---

_SPACE: Final = " \t\n\r"
_LONG: Final = 4096
_LARGEST: Final = float.fromhex("0x1.fffffffffffffp+1023")
_DIGITS_TO_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_DIGITS_BEYOND_DOUBLE: Final = b"0" * 309
"""A whole number with fewer digits is within the range of a double."""

_ESCAPED_SURROGATE: Final = re.compile(r"\\[uU][dD][89a-fA-F]").search


def _read_strictly(text: str, scanner: JSONDecoder) -> Any:
    start = len(text) - len(text.lstrip(_SPACE)) if text[:1] in _SPACE else 0
    value, end = scanner.raw_decode(text, start)
    if end != len(text) and text[end:].strip(_SPACE):
        raise InvalidJson
    # There cannot be more levels than opening brackets.
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _is_deeper(value, MAX_JSON_DEPTH):
        raise InvalidJson
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [container for container in level if type(container) is dict or type(container) is list]
        if not level:
            return False
        level = [item for container in level for item in (container.values() if type(container) is dict else container)]
    return True


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidJson
    return members


def _number(text: str) -> float:
    number = float(text)
    if -_LARGEST <= number <= _LARGEST:
        return number
    raise InvalidJson


def _not_a_number(name: str) -> Never:
    raise InvalidJson


_QUICK: Final = JSONDecoder(
    object_pairs_hook=_members, parse_int=float, parse_float=_number, parse_constant=_not_a_number
)
_CAREFUL: Final = JSONDecoder(
    object_pairs_hook=_members, parse_int=_number, parse_float=_number, parse_constant=_not_a_number
)

# --- Lenient spellings ---

_CHUNKS: Final = re.compile(
    r"""
    ( (?:                                           # what stays as it is:
        "[^"\\\x00-\x1f]*"                          #   strict strings without escapes
      | [^"',A-Za-z_]++                             #   numbers, brackets, space, and what is in no grammar
      | (?<=[0-9])[eE](?=[0-9+-])
      | (?:true|false|null)(?![A-Za-z0-9_])
      | ,(?![\ \t\n\r]*+[\]}])                     #   commas that do not trail
    )*+ )
    (?: ( '[^'"\\\x00-\x1f]*' )
      | ( "(?:[^"\\]++|\\.)*+" | '(?:[^'\\]++|\\.)*+' )
      | ( [A-Za-z_][A-Za-z0-9_]*+ )(?=[\ \t\n\r]*+:)
      | ( , )
      | ( .++ )                                     # a quote that nothing closes, a word that is no key
      | \Z )
    """,
    re.VERBOSE | re.DOTALL,
).findall
_HAS_KNOWN_ESCAPES: Final = re.compile(r"""(?:[^\\]++|\\["'\\/bfnrtuU])*+""").fullmatch
_SURROGATES: Final = re.compile(
    r"\\[uU][dD](?:[89abAB][0-9a-fA-F]{2}(?:[ \t\n\r]*+\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F])"
)
_CONTROLS: Final = {code: f"\\u{code:04x}" for code in range(0x20)}


def _rewrite(text: str) -> str:
    """The same text with every lenient spelling replaced by a strict one.

    Whether the result is JSON is not decided here: what is strict stays, what is misplaced stays misplaced.
    """
    parts: list[str] = []
    previous = ""  # the last character before a chunk
    for plain, simple, string, word, comma, stray in _CHUNKS(text):
        before = plain[-1:]
        if before in _SPACE:
            before = plain.rstrip(_SPACE)[-1:] or previous
        if simple or string:
            if before and before not in "[{,:":
                raise InvalidJson
            parts += (plain, f'"{simple[1:-1]}"' if simple else _strict_string(string))
            previous = '"'
        elif word:
            if before not in "{,":
                raise InvalidJson
            parts += (plain, '"', word, '"')
            previous = '"'
        elif comma:
            # A comma may trail after the end of a value only.
            if before in "[{,:":
                raise InvalidJson
            parts.append(plain)
            previous = ","
        elif stray:
            raise InvalidJson
        else:
            parts.append(plain)
    return "".join(parts)


def _strict_string(string: str) -> str:
    content = string[1:-1]
    if "\\" in content:
        if not _HAS_KNOWN_ESCAPES(content):
            raise InvalidJson
        if "\\\\" in content:
            # Between escaped backslashes, every backslash begins an escape.
            content = "\\\\".join(map(_strict_escapes, content.split("\\\\")))
        else:
            content = _strict_escapes(content)
    if '"' in content:
        content = content.replace('"', '\\"')
    if not content.isprintable():
        content = content.translate(_CONTROLS)
    return f'"{content}"'


def _strict_escapes(piece: str) -> str:
    if "\\u" in piece or "\\U" in piece:
        piece = _SURROGATES.sub(_surrogate_pair, piece).replace("\\U", "\\u")
    # Quotes are escaped again by the caller, whichever they were.
    return piece.replace("\\'", "'").replace('\\"', '"') if '"' in piece or "'" in piece else piece


def _surrogate_pair(escape: re.Match[str]) -> str:
    text = escape[0]
    if len(text) < 12:
        raise InvalidJson
    high, low = int(text[2:6], 16), int(text[-4:], 16)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
