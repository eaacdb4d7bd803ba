"""`Decision` -> CheckResponse bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2

from extauthz.decision import Decision
from extauthz.protos.core_pb2 import HeaderValue, HeaderValueOption
from extauthz.protos.external_auth_pb2 import CheckResponse, DeniedHttpResponse, OkHttpResponse
from extauthz.request import Changes

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_GRPC_STATUS = {401: code_pb2.UNAUTHENTICATED, 403: code_pb2.PERMISSION_DENIED}


def write_decision(decision: Decision, *, clear_first: bool = False) -> bytes:
    """The CheckResponse that makes Envoy do what `decision` says.

    A denial always has a non-zero status *and* a denied_response: Envoy lets status 0 with a denied_response pass, and
    a gRPC error passes under `failure_mode_allow`. `clear_first` sets each header that is to go to an empty value
    before the new ones are set; see `needs_clearing`.
    """
    response = CheckResponse()
    if decision.allowed:
        response.status.code = code_pb2.OK
        response.ok_response.CopyFrom(_ok(decision.changes, clear_first))
    else:
        response.status.code = _GRPC_STATUS.get(decision.status, code_pb2.PERMISSION_DENIED)
        response.status.message = decision.reason
        response.denied_response.CopyFrom(_denied(decision))
    if decision.metadata:
        response.dynamic_metadata.CopyFrom(_struct(_shallow(decision.metadata)))
    return response.SerializeToString()


HEADER_BYTES_LIMIT = 60 * 1024
"""Envoy answers 500 when a request's headers exceed this at any moment while an answer's headers are being set."""


def needs_clearing(changes: Changes, request_bytes: int) -> bool:
    """Whether setting the new headers could exceed Envoy's limit while the headers that are to go are still there.

    `request_bytes` is an upper bound of the request's header bytes; the size of the CheckRequest is one.
    """
    added = changes.added_bytes
    return added > 0 and request_bytes + added > HEADER_BYTES_LIMIT


def _ok(changes: Changes, clear_first: bool) -> OkHttpResponse:
    answer = OkHttpResponse()
    if changes.path is not None:
        # First, since a path that a long token was cut out of makes room for what else is set.
        answer.headers.append(_header(":path", _utf8(changes.path)))
    for name, lines in changes.headers.items():
        if not lines:
            # Removals act after additions, so a header is removed only when it gets no value.
            answer.headers_to_remove.append(name)
            if clear_first:
                answer.headers.append(_header(name, ""))
    for name, lines in changes.headers.items():
        if lines:
            answer.headers.append(_header(name, _utf8(",".join(lines))))
    return answer


def _denied(decision: Decision) -> DeniedHttpResponse:
    answer = DeniedHttpResponse(body=decision.body)
    answer.status.code = decision.status
    answer.headers.extend(_header(name, _utf8(value)) for name, value in decision.response_headers)
    return answer


def _header(name: str, value: str) -> HeaderValueOption:
    option = HeaderValueOption(header=HeaderValue(key=name, value=value))
    # The field's default is to append; only `append` is looked at, `append_action` makes no difference.
    option.append.value = False
    return option


def _utf8(wire: str) -> str:
    """Wire text as the UTF-8 that a `value` must be. Bytes that are not UTF-8 can only be sent percent-encoded."""
    if wire.isascii():
        return wire
    text = wire.encode("latin-1").decode("utf-8", "surrogateescape")
    return _NOT_UTF8.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", text)


MAX_MESSAGE_LEVELS = 90
"""Protobuf's readers, Envoy's among them, give a message up that nests more than 100 messages deep."""


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
            shallow[name] = {inner: member for inner, member in value.items() if _fits(member, MAX_MESSAGE_LEVELS - 3)}
    return shallow


def _fits(value: Any, levels: int) -> bool:
    """Whether a value of a Struct nests at most `levels` messages deep."""
    if isinstance(value, Mapping):
        return levels >= 3 and all(_fits(member, levels - 3) for member in value.values())
    if isinstance(value, list | tuple):
        return levels >= 2 and all(_fits(member, levels - 2) for member in value)
    return True


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct
