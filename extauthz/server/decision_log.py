"""The decision log: one JSON object a line for each decision, written by a thread of its own.

Field names follow OpenTelemetry's conventions where there are any. What is secret stays out: of a token only its key
id, issuer and subject and a hash, of the URL no query, of the claims those that the operator listed. On the way of a
call only a few strings are taken out of the request; rendering and writing happen later, and what the writer cannot
keep up with is dropped and counted.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extauthz.authorizer import PAYLOAD_METADATA_KEY
from extauthz.decision import Decision
from extauthz.request import Request, without_query
from extauthz.server.logs import timestamp
from extauthz.server.metrics import Snapshot
from extauthz.server.options import DecisionLogOptions
from extauthz.server.sinks import FileSink, StreamSink
from extauthz.server.token_finder import TokenFinder, parse, without_signature
from extauthz.server.writer import LineWriter

MAX_TEXT = 2_048
"""Characters of a text from the request that are logged."""

CLOSE_SECONDS = 2.0

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C Trace Context, section 3.2."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one decision until it is written. All texts are wire text."""

    time: float
    decision: Decision
    method: str
    path: str
    host: str
    source_address: str
    request_id: str
    trace_parent: str
    token_sha256: str
    token_claimed: str
    """The token's first two pieces, or nothing when they are too long to keep."""


class DecisionLog:
    """Takes decisions by `record`, from `start` to `close`."""

    def __init__(self, options: DecisionLogOptions, worker: int = 0) -> None:
        path = options.path.replace("{worker}", str(worker))
        sink = StreamSink(1) if path == "-" else FileSink(path, max_bytes=options.max_bytes, keep=options.keep)
        self._claims = options.claims
        self._sample = options.sample
        self._share = 0.0
        self._tokens = TokenFinder()
        self._writer: LineWriter[Entry] = LineWriter(sink, self._render, name="decision-log")

    def start(self) -> None:
        """Begin to write."""
        self._writer.start()

    def close(self) -> None:
        """Write what waits, as far as that is possible in a moment."""
        self._writer.close(CLOSE_SECONDS)

    def follow(self, tokens: TokenFinder) -> None:
        """From now on tokens are where `tokens` finds them."""
        self._tokens = tokens

    def record(self, request: Request | None, decision: Decision) -> None:
        """Take one decision; never waits. The request is None when the call asked about none."""
        if decision.allowed and self._sample < 1.0:
            # Every so many-th, rather than at random: exact, and cheaper.
            self._share += self._sample
            if self._share < 1.0:
                return
            self._share -= 1.0
        if request is None:
            self._writer.put(Entry(time.time(), decision, "", "", "", "", "", "", "", ""))
            return
        token = self._tokens.find(request)
        self._writer.put(
            Entry(
                time.time(),
                decision,
                request.method[:MAX_TEXT],
                without_query(request.path)[:MAX_TEXT],
                request.host[:MAX_TEXT],
                request.source_address,
                _first(request.lines("x-request-id")),
                _first(request.lines("traceparent")),
                hashlib.sha256(token.encode("latin-1")).hexdigest() if token else "",
                without_signature(token),
            )
        )

    def snapshot(self) -> Snapshot:
        """Lines written and dropped."""
        return {"decision_log_lines": {("written",): self._writer.written, ("dropped",): self._writer.dropped}}

    @property
    def error(self) -> str | None:
        """Why nothing can be written at the moment; None when all is well."""
        return self._writer.error

    def _render(self, entry: Entry) -> bytes:
        return json.dumps(self._fields(entry), separators=(",", ":")).encode() + b"\n"

    def _fields(self, entry: Entry) -> dict[str, Any]:
        decision = entry.decision
        payload = decision.metadata.get(PAYLOAD_METADATA_KEY)
        fields: dict[str, Any] = {
            "timestamp": timestamp(entry.time),
            "event.name": "extauthz.decision",
            **_trace(entry.trace_parent),
            "http.request.method": entry.method,
            "url.path": entry.path,
            "server.address": entry.host,
            "client.address": entry.source_address,
            "http.request.header.x-request-id": entry.request_id,
            "extauthz.decision": "allow" if decision.allowed else "deny",
            "extauthz.reason": decision.reason,
            **_token_fields(entry, payload),
        }
        if not decision.allowed:
            fields["http.response.status_code"] = decision.status
        if self._claims and payload:
            fields["jwt.claims"] = {name: payload[name] for name in self._claims if name in payload}
        results = {name: value for name, value in decision.metadata.items() if name != PAYLOAD_METADATA_KEY}
        if results:
            # What audit and dry-run policies would have said.
            fields["extauthz.metadata"] = results
        return {name: value for name, value in fields.items() if value not in ("", None)}


def _token_fields(entry: Entry, payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """The token as far as it may be told: from its verified payload, or, marked so, as it claims to be."""
    if not entry.token_sha256:
        return {}
    header, unverified = parse(entry.token_claimed)
    claims = payload if payload is not None else unverified
    return {
        "jwt.sha256": entry.token_sha256,
        "jwt.key_id": _text(header.get("kid")),
        "jwt.issuer": _text(claims.get("iss")),
        "jwt.subject": _text(claims.get("sub")),
        "jwt.verified": True if payload is not None else None,
    }


def _trace(trace_parent: str) -> dict[str, str]:
    match = _TRACE_PARENT.fullmatch(trace_parent)
    if match is None:
        return {}
    return {"trace_id": match[1], "span_id": match[2], "trace_flags": match[3]}


def _text(value: object) -> str | None:
    return value[:MAX_TEXT] if isinstance(value, str) else None


def _first(lines: Sequence[str]) -> str:
    return lines[0][:MAX_TEXT] if lines else ""
