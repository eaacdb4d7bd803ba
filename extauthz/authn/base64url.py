"""base64url (RFC 4648 section 5) as leniently as Envoy reads it, in tokens and in keys.

    text    = *( character / space ) [ padding ]
    padding = exactly the one or two "=" that the length calls for, or none; "." pads as well
    space   = " " / TAB / LF / VT / FF / CR, anywhere

The unused low bits of the last character are not looked at. "+" and "/" of the standard alphabet are refused.
"""

from __future__ import annotations

from binascii import a2b_base64
from typing import Final

# To the standard alphabet, and what that alphabet has in other places to something it has not.
_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/***")
_PADDING: Final = (b"", b"===", b"==", b"=")
_SPACE: Final = b" \t\n\v\f\r"


def decode(text: str) -> bytes | None:
    """The bytes that `text` stands for, None when it is no base64url."""
    try:
        data = text.encode("latin-1")
        standard = data.translate(_TO_STANDARD)
        return a2b_base64(standard + _PADDING[len(data) & 3], strict_mode=True)
    except ValueError:
        return _decode_leniently(text)


def _decode_leniently(text: str) -> bytes | None:
    """What the quick way refuses: white space and padding."""
    if not text.isascii():
        return None
    data = text.encode("ascii").translate(None, _SPACE)
    body = data.rstrip(b"=.")
    padding = _PADDING[len(body) & 3]
    if len(data) - len(body) not in (0, len(padding)):
        return None
    try:
        return a2b_base64(body.translate(_TO_STANDARD) + padding, strict_mode=True)
    except ValueError:
        return None
