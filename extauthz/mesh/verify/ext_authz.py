"""What Envoy's `ext_authz` filter makes of a CheckResponse: the part of Envoy that stands between our answer and its
effect, modelled so that one answer costs no second trip through Envoy.

Seen on Envoy 1.40; `extauthz verify --via envoy` goes through the real filter instead.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import quote

from extauthz.mesh.verify.outcome import Outcome, Upstream, by_name
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse

HEADER_BYTES_LIMIT = 60 * 1024
HEADER_COUNT_LIMIT = 100
OUTGROWN = "the request's headers outgrew Envoy's limit while the answer's were set"
"""Reason of the outcome that stands for this."""

_GRPC_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_GRPC_UNKNOWN = 2
_NOT_IN_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_NOT_ENCODED_IN_GRPC_MESSAGE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~ "
"""Besides letters and digits: all printable ASCII but `%`."""

Lines = list[tuple[str, str]]


def request_lines(check: CheckRequest) -> Lines:
    """The header lines that a CheckRequest carries, pseudo headers included, as wire text."""
    entries = check.attributes.request.http.header_map.headers
    return [(entry.key, entry.raw_value.decode("latin-1")) for entry in entries]


def effect(check: CheckRequest, response: CheckResponse) -> Outcome:
    """The outcome for the request that was asked about when this is the answer."""
    lines = request_lines(check)
    if response.status.code != 0:
        return _denied(lines, response)
    return allowed(check, _apply(lines, response))


def allowed(check: CheckRequest, lines: Lines | None) -> Outcome:
    """The outcome of a request that goes on with these header lines; None: they outgrew Envoy's limits."""
    if lines is None:
        return replace(_reply(request_lines(check), 500, ""), details=OUTGROWN)
    for name, value in lines:
        if _NOT_IN_HEADER.search(value):
            # The upstream's codec refuses it.
            return _reply(lines, 503, f"invalid header value for: {name}")
    values = dict(lines)
    headers = by_name((name, value.strip(" \t")) for name, value in lines if name[:1] != ":")
    headers["host"] = (values.get(":authority", ""),)
    return Outcome(200, upstream=Upstream(values[":method"], values[":path"], headers))


def _apply(lines: Lines, response: CheckResponse) -> Lines | None:
    for option in response.ok_response.headers:
        name, value = option.header.key.lower(), option.header.value.encode("utf-8").decode("latin-1")
        # To Envoy these are one header.
        name = ":authority" if name == "host" else name
        if option.append.value:
            lines = _append(lines, name, value)
        else:
            lines = _replace(lines, name, value)
        if outgrown(lines):
            return None
    removed = {name.lower() for name in response.ok_response.headers_to_remove}
    return [(name, value) for name, value in lines if name[:1] == ":" or name == "host" or name not in removed]


def outgrown(lines: Lines) -> bool:
    """Whether a request's headers are more than Envoy holds while an answer's headers are set."""
    return sum(len(name) + len(value) for name, value in lines) > HEADER_BYTES_LIMIT or len(lines) > HEADER_COUNT_LIMIT


def _replace(lines: Lines, name: str, value: str) -> Lines:
    kept = [line for line in lines if line[0] != name]
    if name[:1] == ":":
        return [(name, value), *kept]
    return [*kept, (name, value)]


def _append(lines: Lines, name: str, value: str) -> Lines:
    for index, (known, old) in enumerate(lines):
        if known == name:
            return [*lines[:index], (name, f"{old},{value}"), *lines[index + 1 :]]
    return lines


def _denied(lines: Lines, response: CheckResponse) -> Outcome:
    denied = response.denied_response
    extra = [(option.header.key.lower(), option.header.value) for option in denied.headers]
    return _reply(lines, denied.status.code or 403, denied.body, extra)


def _reply(lines: Lines, status: int, body: str, extra: Lines | None = None) -> Outcome:
    """An answer of Envoy's own: for a gRPC request the status goes where gRPC has it, for HEAD there is no body."""
    extra = extra or []
    challenges = tuple(value for name, value in extra if name == "www-authenticate")
    bodyless = any(line == (":method", "HEAD") for line in lines)
    if is_grpc(lines):
        return Outcome(
            200,
            content_type="application/grpc",
            www_authenticate=challenges,
            grpc_status=str(_GRPC_OF_HTTP.get(status, _GRPC_UNKNOWN)),
            grpc_message="" if bodyless else quote(body, safe=_NOT_ENCODED_IN_GRPC_MESSAGE),
        )
    content_type = next((value for name, value in extra if name == "content-type"), "text/plain" if body else "")
    return Outcome(status, "" if bodyless else body, content_type, challenges)


def is_grpc(lines: Lines) -> bool:
    """Whether Envoy answers a request with these header lines as a gRPC one."""
    content_type = next((value for name, value in lines if name == "content-type"), "")
    return content_type == "application/grpc" or content_type.startswith("application/grpc+")
