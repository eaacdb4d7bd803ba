"""What an ext_authz answer cannot express: the known differences of docs/limits.md, recognised where they show.

A mesh's outcome is brought to the form in which Envoy would have been able to take it from us; what then still differs
is a difference.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extauthz.mesh.verify.ext_authz import OUTGROWN, outgrown
from extauthz.mesh.verify.outcome import Outcome, Upstream

REPEATED_HEADER = "repeated-header"
NOT_UTF8 = "not-utf8"
MEMBER_ORDER = "member-order"
TOO_LARGE = "too-large"

_BLANKS_AROUND_COMMA = re.compile(r"[ \t]*,[ \t]*")
_SURROGATE = re.compile("[\udc80-\udcff]")


def settle(mesh: Outcome, ours: Outcome) -> tuple[Outcome, Outcome, tuple[str, ...]]:
    """Both outcomes with the known differences taken out, and the names of those that were."""
    if ours.details == OUTGROWN and _unavoidable(mesh):
        return ours, ours, (TOO_LARGE,)
    if mesh.upstream is None or ours.upstream is None:
        challenges = tuple(map(_as_utf8, mesh.www_authenticate))
        if challenges != mesh.www_authenticate and challenges == ours.www_authenticate:
            return replace(mesh, www_authenticate=challenges), ours, (NOT_UTF8,)
        return mesh, ours, ()
    found: dict[str, None] = {}
    path = _as_utf8(mesh.upstream.path)
    if path != mesh.upstream.path and path == ours.upstream.path:
        found[NOT_UTF8] = None
        mesh = replace(mesh, upstream=replace(mesh.upstream, path=path))
    assert mesh.upstream is not None
    headers = dict(mesh.upstream.headers)
    for name, lines in mesh.upstream.headers.items():
        expected = ours.upstream.headers.get(name)
        if expected is None or ",".join(lines) == ",".join(expected):
            continue
        why = _same_but(lines, expected)
        if why:
            found[why] = None
            headers[name] = expected
    return replace(mesh, upstream=Upstream(mesh.upstream.method, mesh.upstream.path, headers)), ours, tuple(found)


def _unavoidable(mesh: Outcome) -> bool:
    """Whether no order of an answer's headers would have kept the request within Envoy's limit."""
    if mesh.upstream is not None:
        return outgrown(mesh.upstream.lines())
    # Refused by the upstream's codec: what it was offered is not known.
    return mesh.details.startswith("filter_removed_required_request_headers")


def _same_but(mesh: tuple[str, ...], ours: tuple[str, ...]) -> str:
    """Why two values of a header may differ; empty when there is no excuse."""
    if len(mesh) > 1 and _unblanked(mesh) == _unblanked(ours):
        return REPEATED_HEADER
    if len(mesh) == len(ours) == 1 and _objects(mesh[0]) is not None and _objects(mesh[0]) == _objects(ours[0]):
        return MEMBER_ORDER
    return ""


def _unblanked(lines: tuple[str, ...]) -> str:
    return _BLANKS_AROUND_COMMA.sub(",", ",".join(lines)).strip(" \t")


def _objects(value: str) -> Any:
    """What a claim that was written as base64 of JSON holds, if it holds an object; else None."""
    try:
        decoded = json.loads(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return None
    return decoded if _has_object(decoded) else None


def _has_object(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(map(_has_object, value)))


def _as_utf8(wire: str) -> str:
    """Wire text with the bytes that are no UTF-8 percent-encoded."""
    text = wire.encode("latin-1").decode("utf-8", "surrogateescape")
    encoded = _SURROGATE.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", text)
    return encoded.encode("utf-8").decode("latin-1")
