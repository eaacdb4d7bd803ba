"""The decision log: one JSON object a line for each decision.

Field names follow OpenTelemetry's conventions where there are any. What is secret stays out: of a token only its key
id, issuer and subject and a hash, of the URL no query, of the claims those that the operator listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from extauthz.authorizer import PAYLOAD_METADATA_KEY
from extauthz.decision import Decision
from extauthz.server.background import GATHER_SECONDS
from extauthz.server.logs import timestamp
from extauthz.server.metrics import Snapshot
from extauthz.server.observation import MAX_TEXT, Observation
from extauthz.server.options import DecisionLogOptions
from extauthz.server.sinks import FileSink, StreamSink
from extauthz.server.token_finder import Token, TokenFacts
from extauthz.server.writer import LineWriter

KNOWN_TOKENS = 1_024
"""Tokens whose facts are remembered: reading one costs more than the rest of its line."""

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C Trace Context, section 3.2."""


class DecisionLog(LineWriter[Observation]):
    """An observer (`observation.Observer`) that writes what it is told, from `start` to `close`."""

    def __init__(self, options: DecisionLogOptions, worker: int = 0) -> None:
        path = options.path.replace("{worker}", str(worker))
        sink = StreamSink(1) if path == "-" else FileSink(path, max_bytes=options.max_bytes, keep=options.keep)
        super().__init__(sink, self.render, name="decision-log", gather=GATHER_SECONDS)
        self._claims = options.claims
        self._sample = options.sample
        self._share = 0.0
        self._encode = json.JSONEncoder(separators=(",", ":")).encode
        self._facts = lru_cache(KNOWN_TOKENS)(TokenFacts.of)

    def wants(self, decision: Decision) -> bool:
        """Every denial, and the wanted share of what is allowed: every so many-th, exact and cheaper than at random."""
        if not decision.allowed or self._sample >= 1.0:
            return True
        self._share += self._sample
        if self._share < 1.0:
            return False
        self._share -= 1.0
        return True

    def snapshot(self) -> Snapshot:
        """Lines written and dropped."""
        return {"decision_log_lines": {("written",): self.written, ("dropped",): self.dropped}}

    def render(self, observation: Observation) -> bytes:
        """The line for one decision."""
        return self._encode(self._fields(observation)).encode() + b"\n"

    def _fields(self, seen: Observation) -> dict[str, Any]:
        decision = seen.decision
        payload = decision.metadata.get(PAYLOAD_METADATA_KEY)
        fields: dict[str, Any] = {
            "timestamp": timestamp(seen.began / 1e9),
            "event.name": "extauthz.decision",
            **_trace(seen.trace_parent),
            "http.request.method": seen.method,
            "url.path": seen.path,
            "server.address": seen.host,
            "client.address": seen.source_address,
            "http.request.header.x-request-id": seen.request_id,
            "extauthz.decision": "allow" if decision.allowed else "deny",
            "extauthz.reason": decision.reason,
            "extauthz.duration_us": (seen.ended - seen.began) // 1000,
            **(self._token_fields(seen.token, payload) if seen.token is not None else {}),
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

    def _token_fields(self, token: Token, payload: Mapping[str, Any] | None) -> dict[str, Any]:
        """The token as far as it may be told: from its verified payload, or, without the mark, as it claims to be."""
        facts = self._facts(token)
        issuer, subject = (facts.issuer, facts.subject) if payload is None else (payload.get("iss"), payload.get("sub"))
        return {
            "jwt.sha256": facts.sha256,
            "jwt.key_id": _cut(facts.key_id),
            "jwt.issuer": _cut(issuer),
            "jwt.subject": _cut(subject),
            "jwt.verified": payload is not None or None,
        }


def _trace(trace_parent: str) -> dict[str, str]:
    match = _TRACE_PARENT.fullmatch(trace_parent)
    if match is None:
        return {}
    return {"trace_id": match[1], "span_id": match[2], "trace_flags": match[3]}


def _cut(value: object) -> str | None:
    return value[:MAX_TEXT] if isinstance(value, str) else None
