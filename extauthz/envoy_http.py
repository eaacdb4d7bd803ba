"""What Envoy's connection manager and codec make of a raw HTTP/1.1 request before any filter sees it.

Needed only where there is no Envoy in front: to decide a request offline, to replay cases, to build Check calls for a
load test. A running service gets its requests after this has happened. Settings are Istio's: path normalisation BASE,
no merging of slashes, no `use_remote_address`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

JOINED_HEADERS = frozenset(
    """
    accept accept-encoding access-control-request-headers access-control-request-method authorization cache-control
    cdn-loop content-encoding content-type expect grpc-accept-encoding grpc-timeout if-match if-modified-since
    if-none-match if-range origin pragma referer user-agent via x-client-trace-id x-envoy-attempt-count
    x-envoy-decorator-operation x-envoy-downstream-service-cluster x-envoy-downstream-service-node
    x-envoy-external-address x-envoy-is-timeout-retry x-envoy-original-path x-forwarded-for x-forwarded-host
    x-forwarded-port x-forwarded-proto
    x-request-id
    """.split()
)
"""Headers that Envoy 1.40 keeps in one line, joined with a comma; every other repeated header keeps its lines."""

REMOVED_HEADERS = frozenset(
    """
    connection keep-alive proxy-connection upgrade x-envoy-expected-rq-timeout-ms x-envoy-force-trace
    x-envoy-hedge-on-per-try-timeout x-envoy-internal x-envoy-ip-tags x-envoy-max-retries
    x-envoy-retriable-status-codes x-envoy-retry-on x-envoy-upstream-alt-stat-name
    x-envoy-upstream-rq-per-try-timeout-ms x-envoy-upstream-rq-timeout-ms x-envoy-upstream-stream-duration-ms
    x-forwarded-client-cert
    """.split()
)
"""Headers of an untrusted client that never reach the filters."""

METHODS = frozenset(
    """
    ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE MSEARCH NOTIFY
    OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK
    UNSUBSCRIBE
    """.split()
)
"""The methods that Envoy's HTTP/1 codec knows; a request with another one is answered 400."""

_NOT_IN_TARGET = re.compile(r"[^\x21-\x7e]|#")
_ABSOLUTE_FORM = re.compile(r"(https?)://([^/?]*)(.*)", re.DOTALL)
_SEMICOLON_DOT_SEGMENT = re.compile(r"(/\.\.?);[^/]*")
_PERCENT_CODE = re.compile(r"%([0-9A-Fa-f]{2})")
_ESCAPED_IN_PATH = re.compile(r'["<>^`{}|]')
_NOT_A_REFERER = re.compile(r'[ \t"<>\\^`{|}\x7f-\xff]')
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def split_target(target: str) -> tuple[str, str | None, str]:
    """Scheme, authority and path with query of a target in absolute form; in origin form ("", None, target)."""
    match = _ABSOLUTE_FORM.match(target)
    if match is None:
        return "", None, target
    rest = match[3]
    return match[1], match[2], rest if rest.startswith("/") else f"/{rest}"


def request_scheme(target_scheme: str, forwarded: str, *, tls: bool) -> str:
    """`:scheme`: that of a target in absolute form, else X-Forwarded-Proto if it is one, else the connection's."""
    if target_scheme:
        return target_scheme
    forwarded = forwarded.lower()
    return forwarded if forwarded in ("http", "https") else "https" if tls else "http"


def normalize_path(path: str) -> str | None:
    """`:path` (query included) after Istio's normalisation BASE; None when Envoy answers 400 by itself.

    Percent codes of unreserved characters are decoded, dot segments resolved, `\\` becomes `/`, and characters that may
    not stand in a path are escaped; the query is untouched.
    """
    if _NOT_IN_TARGET.search(path) or not path.startswith("/"):
        return None
    path, mark, query = path.partition("?")
    if "%00" in path:
        return None
    path = _SEMICOLON_DOT_SEGMENT.sub(r"\1", path).replace("\\", "/")
    path = _PERCENT_CODE.sub(_decode_unreserved, path)
    path = _ESCAPED_IN_PATH.sub(lambda match: f"%{ord(match[0]):02X}", path)
    return _without_dot_segments(path) + mark + query


def _decode_unreserved(code: re.Match[str]) -> str:
    character = chr(int(code[1], 16))
    return character if character in _UNRESERVED else code[0]


def _without_dot_segments(path: str) -> str:
    segments = path[1:].split("/")
    last = len(segments) - 1
    kept: list[str] = []
    for index, segment in enumerate(segments):
        if segment not in (".", ".."):
            kept.append(segment)
            continue
        if segment == ".." and kept:
            kept.pop()
        if index == last:
            kept.append("")
    return "/" + "/".join(kept)


def filter_headers(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Header lines as the filters see them, by lower-case name: trimmed, hop-by-hop ones gone, joinable ones joined."""
    lines: dict[str, list[str]] = {}
    trimmed = [(name.lower(), value.strip(" \t")) for name, value in headers]
    nominated = {
        token.strip(" \t").lower() for name, value in trimmed if name == "connection" for token in value.split(",")
    }
    for name, value in trimmed:
        if name in REMOVED_HEADERS or name in nominated or (name == "te" and value not in ("", "trailers")):
            continue
        known = lines.setdefault(name, [])
        if known and name in JOINED_HEADERS:
            known[0] = ",".join(line for line in (known[0], value) if line)
        else:
            known.append(value)
    if any(_NOT_A_REFERER.search(line) for line in lines.get("referer", ())):
        del lines["referer"]
    return lines
