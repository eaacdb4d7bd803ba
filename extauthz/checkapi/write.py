"""`Decision` -> CheckResponse bytes, written field by field in the order of their numbers.

The numbers stand beside each message; protos/ has the definitions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from google.rpc import code_pb2

from extauthz.checkapi.wire import LIST_LEVELS, STRUCT_LEVELS, sized, struct, varint
from extauthz.decision import Decision
from extauthz.request import Changes

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_ALLOWED = b"\x0a\x00\x1a"
"""`status` (1), whose code 0 is not written, and the tag of `ok_response` (3)."""

_APPEND_FALSE = b"\x12\x00"
_GRPC_STATUS = {401: code_pb2.UNAUTHENTICATED, 403: code_pb2.PERMISSION_DENIED}


def write_decision(decision: Decision, *, clear_first: bool = False) -> bytes:
    """The CheckResponse that makes Envoy do what `decision` says.

    A denial always has a non-zero status *and* a denied_response: Envoy lets status 0 with a denied_response pass, and
    a gRPC error passes under `failure_mode_allow`. `clear_first` sets each header that is to go to an empty value
    before the new ones are set; see `needs_clearing`.
    """
    if decision.allowed:
        return write_allowed(decision.changes, decision.metadata, clear_first=clear_first)
    answer = _status(decision.status, decision.reason) + b"\x12" + sized(_denied(decision))
    return with_metadata(answer, decision.metadata)


def write_allowed(changes: Changes, metadata: Mapping[str, Any], *, clear_first: bool = False) -> bytes:
    """The CheckResponse that lets a request pass; see `write_decision`."""
    return with_metadata(_ALLOWED + sized(_ok(changes, clear_first)), metadata)


def with_metadata(answer: bytes, metadata: Mapping[str, Any]) -> bytes:
    """A CheckResponse that was written without metadata, with it."""
    return answer + b"\x22" + sized(_metadata(metadata)) if metadata else answer


HEADER_BYTES_LIMIT = 60 * 1024
"""Envoy answers 500 when a request's headers exceed this at any moment while an answer's headers are being set."""


def needs_clearing(changes: Changes, request_bytes: int) -> bool:
    """Whether setting the new headers could exceed Envoy's limit while the headers that are to go are still there.

    `request_bytes` is an upper bound of the request's header bytes; the size of the CheckRequest is one.
    """
    added = changes.added_bytes
    return added > 0 and request_bytes + added > HEADER_BYTES_LIMIT


def _ok(changes: Changes, clear_first: bool) -> bytes:
    """An OkHttpResponse: `headers` (2), `headers_to_remove` (5)."""
    fields: list[bytes] = []
    removed: list[bytes] = []
    if changes.path is not None:
        # First, since a path that a long token was cut out of makes room for what else is set.
        fields.append(_header(":path", _utf8(changes.path)))
    for name, lines in changes.headers.items():
        if not lines:
            # Removals act after additions, so a header is removed only when it gets no value.
            removed.append(b"\x2a" + sized(name.encode()))
            if clear_first:
                fields.append(_header(name, b""))
    for name, lines in changes.headers.items():
        if lines:
            fields.append(_header(name, _utf8(",".join(lines))))
    return b"".join(fields + removed)


@lru_cache(maxsize=256)
def _status(http_status: int, reason: str) -> bytes:
    """The field `status` (1) of a denial: `code` (1), `message` (2)."""
    code = b"\x08" + varint(_GRPC_STATUS.get(http_status, code_pb2.PERMISSION_DENIED))
    return b"\x0a" + sized(code + _field(b"\x12", reason.encode()))


def _denied(decision: Decision) -> bytes:
    """A DeniedHttpResponse: `status` (1) with its `code`, `headers` (2), `body` (3)."""
    fields = [b"\x0a" + sized(b"\x08" + varint(decision.status))]
    fields += [_header(name, _utf8(value)) for name, value in decision.response_headers]
    fields.append(_field(b"\x1a", decision.body.encode()))
    return b"".join(fields)


def _header(name: str, value: bytes) -> bytes:
    """A HeaderValueOption in the field `headers` of either answer: `header` (1) with key and value, `append` (2)."""
    header = _key(name) + _field(b"\x12", value)
    # The field's default is to append; only `append` is looked at, `append_action` makes no difference.
    return b"\x12" + sized(b"\x0a" + sized(header) + _APPEND_FALSE)


@lru_cache(maxsize=256)
def _key(name: str) -> bytes:
    # Names are those that rules and answers give, never a client's.
    return _field(b"\x0a", name.encode())


def _field(tag: bytes, payload: bytes) -> bytes:
    """A string field, which is left out when it is empty."""
    return tag + sized(payload) if payload else b""


def _utf8(wire: str) -> bytes:
    """Wire text as the UTF-8 that a `value` must be. Bytes that are not UTF-8 can only be sent percent-encoded."""
    if wire.isascii():
        return wire.encode()
    text = wire.encode("latin-1").decode("utf-8", "surrogateescape")
    return _NOT_UTF8.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", text).encode()


MAX_MESSAGE_LEVELS = 90
"""Protobuf's readers, Envoy's among them, give a message up that nests more than 100 messages deep."""


def _metadata(values: Mapping[str, Any]) -> bytes:
    """A Struct of `values`, as much of it as Envoy can read."""
    written = struct(dict(values), MAX_MESSAGE_LEVELS)
    if written is None:
        written = struct(_shallow(values), MAX_MESSAGE_LEVELS)
        assert written is not None
    return written


def _shallow(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, and what mappings right under them hold, without members that nest too deep for Envoy to read.

    A token may hold a hundred levels of JSON, and a level costs two or three messages. An answer that Envoy cannot read
    would refuse the request; a claim that metadata lacks only keeps it from route matches and access logs.
    """
    shallow: dict[str, Any] = {}
    for name, value in values.items():
        if _fits(value, MAX_MESSAGE_LEVELS):
            shallow[name] = value
        elif isinstance(value, Mapping):
            shallow[name] = {
                inner: member for inner, member in value.items() if _fits(member, MAX_MESSAGE_LEVELS - STRUCT_LEVELS)
            }
    return shallow


def _fits(value: Any, levels: int) -> bool:
    """Whether a value of a Struct nests at most `levels` messages deep."""
    if isinstance(value, Mapping):
        return levels >= STRUCT_LEVELS and all(_fits(member, levels - STRUCT_LEVELS) for member in value.values())
    if isinstance(value, list | tuple):
        return levels >= LIST_LEVELS and all(_fits(member, levels - LIST_LEVELS) for member in value)
    return True
