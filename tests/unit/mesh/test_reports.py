"""Reports: what people and programs are told about a difference, and the case file made of it."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest

from extauthz.authorizer import AuthorizerOptions
from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.istio.resources import JwtHeader, JwtRule, Metadata, RequestAuthentication, Resources
from extauthz.mesh.verify import record, report
from extauthz.mesh.verify.campaign import Failure, Rejection, Report
from extauthz.mesh.verify.casefile import read_case_file
from extauthz.mesh.verify.engine import Comparison, PolicySet
from extauthz.mesh.verify.outcome import Outcome, Upstream, differences
from extauthz.mesh.verify.probe import Peer, Probe
from extauthz.mesh.verify.trials import trial_of

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: foo}
spec: {action: DENY, rules: [{to: [{operation: {hosts: ["x${y}"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: b, namespace: foo}
spec: {rules: [{}]}
"""

SET = PolicySet(
    "a title",
    load(["-"], stdin=io.StringIO(POLICIES)).resources,
    AuthorizerOptions(trust_domain="td1", trust_domain_aliases=("td2",), trusted_hops=1),
)

PROBE = Probe(
    method="POST",
    target="/x?a='b'",
    headers=(("x-a", "\xff\x01${z}"), ("x-b", "")),
    host="h",
    body="hi",
    source="127.0.0.2",
    port=81,
    peer=Peer(uris=("spiffe://a",), dns_names=("b",), common_name="c", organization="o"),
    server_name="s",
    metadata=(("envoy.filters.x", "k", "[1.0]"),),
)

MESH = Outcome(200, upstream=Upstream("POST", "/x", {"x-a": ("\xff", "2")}))
OURS = Outcome(403, "no", "text/plain", details="rbac_access_denied_matched_policy[ns[foo]-policy[a]-rule[0]]")


def comparison(mesh: Outcome = MESH, ours: Outcome = OURS) -> Comparison:
    return Comparison(SET, PROBE, mesh, ours, differences(mesh, ours))


def differing() -> Report:
    return Report(sets=1, compared=10, differing=3, differences=[comparison()], limited={"not-utf8": 1}, seconds=2.0)


def test_a_difference_is_shown_with_request_policy_and_both_answers() -> None:
    text = "\n".join(report.lines(differing()))
    assert "Difference 1: a title" in text
    assert "status: mesh 200, extauthz 403" in text
    assert "mesh       200: POST /x reaches the upstream" in text
    assert "extauthz   403 no [rbac_access_denied_matched_policy[ns[foo]-policy[a]-rule[0]]]" in text
    assert "client certificate spiffe://a, b, c, SNI s" in text
    assert "source 127.0.0.2" in text
    assert "name: a" in text
    # The policy that neither side names as its reason is left out.
    assert "name: b" not in text
    counts = "10 requests to 1 sets of policies in 2.0 s (5/s): 3 differ (1 kinds)"
    assert text.endswith(f"{counts}; known limits met: 1 not-utf8")


def test_agreement_is_said() -> None:
    assert list(report.lines(Report(sets=1, compared=2, seconds=1.0))) == [
        "2 requests to 1 sets of policies in 1.0 s (2/s): both sides agree"
    ]


def test_refused_policies_and_failed_expectations_are_told() -> None:
    result = Report(
        failures=[Failure(comparison(), "Envoy", ("status: 200, expected 403",))],
        rejections=[Rejection(SET, "Envoy", "because")],
    )
    text = "\n".join(report.lines(result))
    assert "a title: Envoy refuses these policies: because" in text
    assert "Envoy does not answer as expected\n  status: 200, expected 403" in text
    assert not result.agreed


def test_the_curl_line_sends_the_same_request() -> None:
    words = shlex.split(report.curl(Probe("POST", "/x?a='b'", (("x-a", "1"), ("x-b", "")), host="h", body="hi")))
    assert words == [
        *("curl", "-i", "--http1.1", "-X", "POST", "--request-target", "/x?a='b'", "-H", "host: h"),
        *("-H", "x-a: 1", "-H", "x-b;", "--data-binary", "hi", "http://127.0.0.1:10000"),
    ]
    assert "--head" in report.curl(Probe("HEAD"))
    assert r"$'x: \xff\x27'" in report.curl(Probe(headers=(("x", "\xff'"),)))


def test_the_report_is_data_too() -> None:
    document = json.loads(json.dumps(record.document(differing())))
    assert document["agreed"] is False
    assert document["limited"] == {"not-utf8": 1}
    (difference,) = document["differences"]
    assert difference["request"]["headers"] == [["x-a", "\xff\x01${z}"], ["x-b", ""]]
    assert difference["mesh"]["status"] == 200
    assert difference["extauthz"]["reason"] == OURS.details
    assert {"what": "status", "mesh": "200", "extauthz": "403"} in difference["differences"]


def test_what_is_saved_is_read_as_the_same_case(tmp_path: Path) -> None:
    file = tmp_path / "saved.yaml"
    record.save(differing(), file)
    (case_set,) = read_case_file(file)
    trial = trial_of(case_set)
    (case,) = trial.cases
    assert case.probe.named("") == PROBE
    assert trial.policies.options == SET.options
    assert trial.policies.resources.authorization_policies == SET.resources.authorization_policies
    assert case.expectation is not None
    assert list(case.expectation.failures(MESH)) == []
    assert list(case.expectation.failures(OURS)) != []


def test_key_sets_that_istiod_would_fetch_are_saved_beside_the_policies(tmp_path: Path) -> None:
    rule = JwtRule(jwks='{"keys":[1]}', from_headers=(JwtHeader(name="x"),))
    resources = Resources(
        request_authentications=(
            RequestAuthentication(metadata=Metadata(name="a", namespace="foo"), jwt_rules=(rule,)),
        )
    )
    policies = PolicySet("t", resources, AuthorizerOptions())
    file = tmp_path / "saved.yaml"
    record.save(Report(differences=[Comparison(policies, Probe(), MESH, OURS, differences(MESH, OURS))]), file)
    (case_set,) = read_case_file(file)
    (loaded,) = trial_of(case_set).policies.resources.request_authentications
    assert loaded.jwt_rules[0].jwks == rule.jwks


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--save"):
        record.save(differing(), tmp_path / "no" / "such" / "directory")
