"""What a fetched body is: a key set, or in plain words what it is instead."""

from __future__ import annotations

import json

from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.authn.keys import KeySet, KeySetError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SMALL = 64 * 1024
"""No real key set is larger. Reading what is takes the interpreter from calls, so it is done once and not in vain."""
_MARKS = (b"keys", b"\\u", b"BEGIN CERTIFICATE")
"""One of these is in every key set: the member's name, spelled out or with escapes, or certificates by key id."""


def read_key_set(body: bytes) -> KeySet:
    """The key set that `body` is. Raises FetchFailure, without a word of the body."""
    if len(body) > _SMALL and not any(mark in body for mark in _MARKS):
        raise FetchFailure(
            Cause.CONTENT, "no usable key set: neither keys nor certificates are in it", hint=_what_it_is(body)
        )
    try:
        return KeySet.parse(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise FetchFailure(Cause.CONTENT, "no usable key set: not UTF-8") from None
    except KeySetError as error:
        raise FetchFailure(Cause.CONTENT, f"no usable key set: {error.reason}", hint=_what_it_is(body)) from None


def _what_it_is(body: bytes) -> str:
    text = body.strip()
    if not text:
        return "the body is empty"
    if text.startswith(_BYTE_ORDER_MARK):
        return "the body begins with a byte order mark"
    if text.startswith(b"<"):
        return "the body is HTML or XML"
    if len(text) > _SMALL:
        return ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return "the JSON ends early" if text[:1] in b"{[" and text[-1:] not in b"}]" else ""
    if isinstance(document, dict) and isinstance(document.get("jwks_uri"), str):
        return "this is a discovery document: jwksUri has to be what its jwks_uri says"
    return ""
