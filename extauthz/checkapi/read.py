"""CheckRequest bytes -> `Request`. Attributes that no policy reads are never taken out of the message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from extauthz.checkapi.peer import PeerCertificates
from extauthz.errors import MalformedCheckRequest, NotAnHttpRequest
from extauthz.protos.core_pb2 import SocketAddress
from extauthz.protos.external_auth_pb2 import AttributeContext, CheckRequest
from extauthz.request import NO_LINES, Request, wire_text

try:
    from extauthz.checkapi import _scan
except ImportError:  # The extension is optional; the codec alone gives the same answers more slowly.
    _scan = None  # type: ignore[assignment]

MAX_SCANNED_HEADERS = 64
"""Policies that read more headers than this are served by the codec: each header is compared with each name."""

_parse = CheckRequest.FromString
_peers = PeerCertificates()


class _Slots(Request):
    """What a `CheckedRequest` keeps beside the attributes of a request."""

    __slots__ = ("_headers", "_message", "_parsed", "_raw_headers")

    _message: bytes
    _parsed: AttributeContext | None
    _headers: Mapping[str, str]
    _raw_headers: Mapping[str, Sequence[bytes]] | None


def _derived(name: str, derive: Callable[[Any], Any]) -> Any:
    """An attribute that is derived when it is first looked at, and kept in the slot of its name, which it hides.

    A `__getattr__` would do the same, and make every look at any attribute of such a request several times as slow.
    """
    slot = getattr(_Slots, name)
    kept, keep = slot.__get__, slot.__set__

    def look(request: Request) -> Any:
        try:
            return kept(request)
        except AttributeError:
            value = derive(request)
            keep(request, value)
            return value

    return property(look, keep)


class CheckedRequest(_Slots):
    """A request read from a CheckRequest; all but method, path, host, scheme is derived when it is first looked at."""

    __slots__ = ()

    _headers = _derived("_headers", lambda request: request._attributes.request.http.headers)
    _raw_headers = _derived("_raw_headers", lambda request: _raw_headers(request))
    header_lines = _derived("header_lines", lambda request: _header_lines(request))
    source_address = _derived("source_address", lambda request: _socket(request._attributes.source).address)
    source_port = _derived("source_port", lambda request: _socket(request._attributes.source).port_value)
    destination_address = _derived(
        "destination_address", lambda request: _socket(request._attributes.destination).address
    )
    destination_port = _derived("destination_port", lambda request: _socket(request._attributes.destination).port_value)
    peer_principals = _derived("peer_principals", lambda request: _peer_principals(request))
    # As the client sent it; Envoy's own filters compare it in lower case.
    server_name = _derived("server_name", lambda request: request._attributes.tls_session.sni.lower())
    metadata = _derived("metadata", lambda request: _metadata(request))

    @property
    def _attributes(self) -> AttributeContext:
        parsed = self._parsed
        if parsed is None:
            parsed = self._parsed = _attributes(self._message)
        return parsed

    def lines(self, name: str) -> Sequence[str]:
        raw = self._raw_headers
        if raw is None:
            value = self._headers.get(name)
            if value is not None:
                return (value if value.isascii() else wire_text(value),)
        else:
            lines = raw.get(name)
            if lines is not None:
                return [line.decode("latin-1") for line in lines]
        return super().lines(name) if name[:1] == ":" or name == "host" else NO_LINES


class _ScannedRequest(CheckedRequest):
    """A request of which the headers that the policies read are known without parsing the whole message."""

    __slots__ = ("_asked", "_found")

    _asked: Collection[str]
    _found: Mapping[str, Sequence[str]]

    def lines(self, name: str) -> Sequence[str]:
        found = self._found.get(name)
        if found is not None:
            return found
        return NO_LINES if name in self._asked else super().lines(name)


def read_check_request(message: bytes) -> Request:
    """The HTTP request that a Check call asks about.

    Both forms of headers are read: `headers` (values joined with commas) and, with Envoy's `encode_raw_headers`,
    `header_map` (each line with its exact bytes). Raises MalformedCheckRequest when the bytes are no CheckRequest, and
    NotAnHttpRequest when they are one that asks about something else (a TCP connection).
    """
    attributes = _attributes(message)
    http = attributes.request.http
    if not http.method:
        raise NotAnHttpRequest("the CheckRequest has no HTTP request")
    request = CheckedRequest.__new__(CheckedRequest)
    request._message = message
    request._parsed = attributes
    request.method, request.path = wire_text(http.method), wire_text(http.path)
    request.host, request.scheme = wire_text(http.host), wire_text(http.scheme)
    return request


def check_request_reader(headers: Iterable[str]) -> Callable[[bytes], Request]:
    """A `read_check_request` that is fastest for requests of which only these headers (lower case) are looked at."""
    if _scan is None:
        return read_check_request
    names = tuple(sorted(name for name in headers if name[:1] != ":" and name != "host" and name.isascii()))
    if len(names) > MAX_SCANNED_HEADERS:
        return read_check_request
    scan = _scan.Scanner(names).scan
    asked = frozenset(names)

    create = _ScannedRequest.__new__

    def read(message: bytes) -> Request:
        scanned = scan(message)
        if scanned is None:
            return read_check_request(message)
        # Filled here, since an __init__ costs a call.
        request = create(_ScannedRequest)
        request._message = message
        request._parsed = None
        request._asked = asked
        request.method, request.path, request.host, request.scheme, request._found = scanned
        return request

    return read


def _attributes(message: bytes) -> AttributeContext:
    try:
        return _parse(message).attributes
    except DecodeError as error:
        raise MalformedCheckRequest("not a CheckRequest") from error


def _raw_headers(request: CheckedRequest) -> Mapping[str, Sequence[bytes]] | None:
    """Lines by name from `header_map`; None when Envoy sent the joined form."""
    entries = request._attributes.request.http.header_map.headers
    if not entries:
        return None
    lines: dict[str, list[bytes]] = {}
    for entry in entries:
        # Envoy fills raw_value; value is read for clients that fill only the older field.
        line = entry.raw_value or entry.value.encode()
        known = lines.get(entry.key)
        if known is None:
            lines[entry.key] = [line]
        else:
            known.append(line)
    return lines


def _header_lines(request: CheckedRequest) -> Mapping[str, Sequence[str]]:
    raw = request._raw_headers
    if raw is None:
        return {name: (wire_text(value),) for name, value in request._headers.items() if name[:1] != ":"}
    return {name: [line.decode("latin-1") for line in lines] for name, lines in raw.items() if name[:1] != ":"}


def _socket(peer: AttributeContext.Peer) -> SocketAddress:
    return peer.address.socket_address


def _peer_principals(request: CheckedRequest) -> Sequence[str]:
    source = request._attributes.source
    return _peers.principals(source.certificate, source.principal)


def _metadata(request: CheckedRequest) -> Mapping[str, Any]:
    return {name: _struct(value) for name, value in request._attributes.metadata_context.filter_metadata.items()}


def _struct(struct: Struct) -> dict[str, Any]:
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return getattr(value, kind) if kind and kind != "null_value" else None
