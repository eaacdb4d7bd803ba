"""The decision log and the spans: what is written of a decision, what never is, and what is left out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from extauthz.decision import Decision
from extauthz.istio.resources import JwtHeader, JwtRule, RequestAuthentication, Resources
from extauthz.minting import SigningKey
from extauthz.request import Request
from extauthz.server.decision_log import DecisionLog
from extauthz.server.observation import MAX_TEXT, Observers
from extauthz.server.options import DecisionLogOptions

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def token() -> str:
    """A token with a claim that must not be seen."""
    return SigningKey.generate("ES256", "key-7").token({"iss": "issuer", "sub": "someone", "salary": 100_000})


def written(
    tmp_path: Path,
    *told: tuple[Request | None, Decision],
    rules: tuple[JwtRule, ...] = (JwtRule(issuer="issuer"),),
    **options: Any,
) -> list[dict[str, Any]]:
    """What the log has after it was told of decisions."""
    path = tmp_path / "decisions"
    log = DecisionLog(DecisionLogOptions(str(path), **options))
    observers = Observers([log])
    observers.follow(Resources(request_authentications=(RequestAuthentication(jwt_rules=rules),)))
    log.start()
    for request, decision in told:
        observers.record(request, decision, time.time_ns())
    log.close(60.0)
    return [json.loads(line) for line in path.read_text().splitlines()]


def request(path: str = "/a", headers: Mapping[str, str] | None = None) -> Request:
    lines = {name: (value,) for name, value in (headers or {}).items()}
    return Request(method="GET", path=path, host="example.com", headers=lines, source_address="192.0.2.7")


def test_an_allowed_decision_with_a_verified_token(tmp_path: Path, token: str) -> None:
    claims = {"iss": "issuer", "sub": "someone", "salary": 100_000}
    headers = {"authorization": f"Bearer {token}", "x-request-id": "id-1", "traceparent": TRACE}
    (line,) = written(tmp_path, (request("/a?q=1", headers), Decision(True, metadata={"jwt_payload": claims})))
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("extauthz.duration_us") >= 0
    assert line == {
        "event.name": "extauthz.decision",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "trace_flags": "01",
        "http.request.method": "GET",
        "url.path": "/a",
        "server.address": "example.com",
        "client.address": "192.0.2.7",
        "http.request.header.x-request-id": "id-1",
        "extauthz.decision": "allow",
        "extauthz.reason": "allowed",
        "jwt.sha256": hashlib.sha256(token.encode()).hexdigest(),
        "jwt.key_id": "key-7",
        "jwt.issuer": "issuer",
        "jwt.subject": "someone",
        "jwt.verified": True,
    }


def test_a_denial_says_why_and_does_not_vouch_for_the_token(tmp_path: Path, token: str) -> None:
    refusal = Decision(False, 401, "Jwt is expired", reason="jwt_authn_access_denied{Jwt_is_expired}")
    (line,) = written(tmp_path, (request(headers={"authorization": f"Bearer {token}"}), refusal))
    assert line["extauthz.decision"] == "deny"
    assert line["extauthz.reason"] == "jwt_authn_access_denied{Jwt_is_expired}"
    assert line["http.response.status_code"] == 401
    assert (line["jwt.issuer"], line["jwt.key_id"]) == ("issuer", "key-7")
    assert "jwt.verified" not in line


@pytest.mark.parametrize("place", ["header", "own header", "parameter", "cookie"])
def test_no_part_of_a_token_is_ever_written(tmp_path: Path, token: str, place: str) -> None:
    rules: tuple[JwtRule, ...]
    match place:
        case "header":
            rules, asked = (JwtRule(issuer="i"),), request(headers={"authorization": f"Bearer {token}"})
        case "own header":
            rules = (JwtRule(issuer="i", from_headers=(JwtHeader(name="X-Token"),)),)
            asked = request(headers={"x-token": token})
        case "parameter":
            rules, asked = (JwtRule(issuer="i"),), request(f"/a?access_token={token}&secret=1")
        case _:
            rules = (JwtRule(issuer="i", from_cookies=("session",)),)
            asked = request(headers={"cookie": f"a=b; session={token}"})
    told = (asked, Decision(False, 403, reason="x"))
    (line,) = written(tmp_path, told, rules=rules)
    assert line["jwt.sha256"] == hashlib.sha256(token.encode()).hexdigest()
    text = (tmp_path / "decisions").read_text()
    assert not any(piece in text for piece in token.split("."))
    assert "salary" not in text
    assert "secret" not in text


def test_only_listed_claims_are_written_and_only_of_verified_tokens(tmp_path: Path, token: str) -> None:
    asked = request(headers={"authorization": f"Bearer {token}"})
    claims = {"iss": "issuer", "salary": 1, "team": ["a"]}
    told = [(asked, Decision(True, metadata={"jwt_payload": claims})), (asked, Decision(False, 403, reason="x"))]
    allowed, denied = written(tmp_path, *told, claims=("team", "none"))
    assert allowed["jwt.claims"] == {"team": ["a"]}
    assert "jwt.claims" not in denied


def test_tokens_that_are_none_are_only_told_apart_by_their_hash(tmp_path: Path) -> None:
    for nonsense in ("x", "..", "a.b.c", "e30.e30.x", "ü.ü.ü", "." * 100, "W10.bnVsbA.x"):
        told = (request(headers={"authorization": f"Bearer {nonsense}"}), Decision(False, 401, reason="x"))
        (line,) = written(tmp_path, told)
        assert len(line["jwt.sha256"]) == 64
        assert "jwt.issuer" not in line
        (tmp_path / "decisions").unlink()


def test_trace_context_that_is_none_is_left_out(tmp_path: Path) -> None:
    told = (request(headers={"traceparent": "00-xyz\r\n"}), Decision(True))
    (line,) = written(tmp_path, told)
    assert "trace_id" not in line


def test_texts_of_the_request_are_cut_and_stay_one_line(tmp_path: Path) -> None:
    headers = {"x-request-id": "a\nb\x00\x1b" + "x" * 10_000}
    (line,) = written(tmp_path, (request("/" + "p" * 10_000, headers), Decision(True)))
    assert len(line["url.path"]) == MAX_TEXT
    assert line["http.request.header.x-request-id"].startswith("a\nb\x00\x1bxxx")
    assert len(line["http.request.header.x-request-id"]) == MAX_TEXT


def test_results_of_audit_and_dry_run_policies_are_written(tmp_path: Path) -> None:
    decision = Decision(True, metadata={"shadow": "denied", "jwt_payload": {"iss": "i"}})
    (line,) = written(tmp_path, (request(), decision))
    assert line["extauthz.metadata"] == {"shadow": "denied"}


def test_a_call_about_no_request_is_written_too(tmp_path: Path) -> None:
    (line,) = written(tmp_path, (None, Decision(False, 403, reason="not_an_http_request")))
    assert line["extauthz.reason"] == "not_an_http_request"
    assert "url.path" not in line


def test_a_share_of_what_is_allowed_and_all_denials(tmp_path: Path) -> None:
    told = [(request(), Decision(True))] * 100 + [(request(), Decision(False, 403, reason="x"))] * 10
    lines = written(tmp_path, *told, sample=0.25)
    assert sum(line["extauthz.decision"] == "allow" for line in lines) == 25
    assert sum(line["extauthz.decision"] == "deny" for line in lines) == 10


def test_a_path_of_its_own_for_each_worker(tmp_path: Path) -> None:
    log = DecisionLog(DecisionLogOptions(str(tmp_path / "log-{worker}")), worker=3)
    log.start()
    Observers([log]).record(request(), Decision(True), 0)
    log.close(60.0)
    assert (tmp_path / "log-3").exists()


def test_spans_continue_the_trace_of_the_request() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind

    from extauthz.server.tracing import Spans

    exporter = InMemorySpanExporter()
    spans = Spans(SimpleSpanProcessor(exporter))
    spans.start()
    observers = Observers([spans])
    began = time.time_ns() - 5_000_000
    observers.record(request("/a?b", {"traceparent": TRACE}), Decision(False, 403, reason="x"), began)
    observers.record(None, Decision(True), began)
    spans.close(60.0)
    first, second = exporter.get_finished_spans()
    assert first.name == "envoy.service.auth.v3.Authorization/Check"
    assert first.kind is SpanKind.SERVER
    assert first.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert first.parent is not None
    assert first.parent.span_id == 0xB7AD6B7169203331
    assert first.start_time == began
    assert first.attributes is not None
    assert first.attributes["url.path"] == "/a"
    assert first.attributes["extauthz.decision"] == "deny"
    assert first.resource.attributes["service.name"] == "extauthz"
    assert second.parent is None
