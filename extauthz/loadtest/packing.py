"""Requests as bytes: the packed header fields that the native engine hands to nghttp2, and HTTP/1.1 as it is sent."""

from __future__ import annotations

import struct
from collections.abc import Iterable

CHECK_PATH = "/envoy.service.auth.v3.Authorization/Check"

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"})
"""Header fields that HTTP/2 does not have (RFC 9113 section 8.2.2)."""


def packed(fields: Iterable[tuple[str, str]]) -> bytes:
    """Header fields (wire text) as `native/http2.c` reads them: a count, then the lengths and bytes of each."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    parts = [struct.pack("=I", len(encoded))]
    for name, value in encoded:
        parts += (struct.pack("=II", len(name), len(value)), name, value)
    return b"".join(parts)


def check_fields(authority: str, timeout: float) -> list[tuple[str, str]]:
    """The header fields of a Check call, as Envoy's gRPC client sends them."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", CHECK_PATH),
        (":authority", authority),
        ("te", "trailers"),
        ("grpc-timeout", f"{max(1, round(timeout * 1000))}m"),
        ("content-type", "application/grpc"),
    ]


def http2_request(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """One h2c request: its packed header fields, then its body."""
    fields = [(":method", method), (":scheme", "http"), (":path", target), (":authority", host)]
    fields += ((name.lower(), value) for name, value in headers if name.lower() not in _HOP_BY_HOP)
    return packed(fields) + body


def http1_request(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """One HTTP/1.1 request; a body without a length gets one."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    names = set()
    for name, value in headers:
        if name.lower() != "host":
            names.add(name.lower())
            lines.append(f"{name}: {value}")
    if body and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
