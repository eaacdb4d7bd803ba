"""`extauthz verify` as it is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.envoy

STORY = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt-example, namespace: istio-system}
spec:
  selector: {matchLabels: {app: gateway}}
  jwtRules: [{issuer: testing@secure.istio.io, jwksUri: "https://keys.invalid/jwks"}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: test-exclude, namespace: istio-system}
spec:
  selector: {matchLabels: {app: gateway}}
  action: DENY
  rules:
  - from: [{source: {notRequestPrincipals: ["*"]}}]
    to: [{operation: {notPaths: [/productpage]}}]
"""


def verify(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extauthz", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={name: value for name, value in os.environ.items() if not name.startswith("EXTAUTHZ_")},
    )


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.yaml"
    path.write_text(STORY)
    return path


def test_policies_alone_are_gone_through_one_by_one(story: Path) -> None:
    done = verify("--policy", story, "--workload", "istio-system/app=gateway")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "both sides agree" in done.stdout


def test_requests_are_drawn_at_random(story: Path) -> None:
    done = verify("--policy", story, "--fuzz", "200", "--seed", "3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert (document["compared"], document["agreed"]) == (200, True)


def test_a_running_server_behind_ext_authz_is_compared_too(story: Path) -> None:
    done = verify("--policy", story, "--fuzz", "100", "--via", "envoy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_requests_come_from_a_file_and_a_wrong_expectation_is_told(story: Path, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_text(
        '{"target": "/productpage", "expect": 200}\n{"name": "other", "target": "/x", "expect": {"status": 200}}\n'
    )
    done = verify("--policy", story, "--cases", requests)
    assert done.returncode == 1
    assert "requests.jsonl: other: Envoy does not answer as expected" in done.stdout
    assert "requests.jsonl: other: extauthz does not answer as expected" in done.stdout
    assert "status: 403, expected 200" in done.stdout


def test_policies_that_cannot_be_used_are_reported_and_not_skipped(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(
        "policies: |\n"
        "  apiVersion: security.istio.io/v1\n  kind: RequestAuthentication\n  metadata: {name: a, namespace: b}\n"
        "  spec: {jwtRules: [{issuer: a, jwks: junk}]}\n"
        "requests: [{target: /}]\n"
    )
    done = verify("--cases", cases)
    assert done.returncode == 1
    assert "extauthz refuses these policies" in done.stdout
    assert "spec.jwtRules[0].jwks: Jwks is an invalid JSON" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the policies"),
        (["--random-policies", "3"], "--fuzz"),
        (["--policy", "/no/such/file"], "no such file"),
        (["--cases", "/no/such/file.yaml"], "No such file"),
        (["--cases", "/no/such/file.jsonl"], "need policies"),
        (["--random-policies", "1", "--fuzz", "1", "--via", "x"], "--via"),
        (["--random-policies", "1", "--fuzz", "1", "--envoy", "/no/such/envoy"], "not an executable"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = verify(*arguments)
    assert done.returncode == 2
    assert message.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
