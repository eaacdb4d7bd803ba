"""Options into a plan, and each way in which they can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.authorizer import Authorizer
from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.loadtest import sender_native
from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.plan import LoadOptions, TokenOptions, make_plan, slice_seconds
from extauthz.loadtest.sender_choice import choose
from extauthz.loadtest.target import TlsFiles, check_target, url_target
from extauthz.minting import SigningKey, key_set
from extauthz.protos.external_auth_pb2 import CheckResponse

PLAIN = TlsFiles()
CHECK = LoadOptions(target="127.0.0.1:9191")
PERMISSION_DENIED = 7
CLAIMS_POLICY = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec: {{jwtRules: [{{issuer: me, jwks: '{jwks}'}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: admins, namespace: shop}}
spec:
  rules:
  - from: [{{source: {{requestPrincipals: ["me/*"]}}}}]
    to: [{{operation: {{paths: ["/admin"]}}}}]
    when: [{{key: "request.auth.claims[groups]", values: ["admin"]}}]
"""


def test_targets_are_addresses():
    target = check_target("127.0.0.1:9191", PLAIN)
    assert (target.protocol, target.address, target.authority) == (
        Protocol.CHECK,
        ("127.0.0.1", 9191),
        "127.0.0.1:9191",
    )
    assert check_target("[::1]:9", PLAIN).address == ("::1", 9)
    assert check_target("unix:/run/a.sock", PLAIN).address == "/run/a.sock"
    assert check_target("localhost:9", PLAIN).address[0] in ("127.0.0.1", "::1")
    tls = check_target("127.0.0.1:9", TlsFiles(wanted=True, name="me")).tls
    assert tls is not None
    assert tls.name == "me"


def test_urls_name_what_is_spoken():
    target = url_target("http://localhost:8080/a?b=c", "1.1", PLAIN)
    assert (target.protocol, target.authority, target.path) == (Protocol.HTTP1, "localhost:8080", "/a?b=c")
    assert target.tls is None
    assert url_target("http://127.0.0.1", "2", PLAIN).address == ("127.0.0.1", 80)
    secure = url_target("https://127.0.0.1/", "1.1", PLAIN)
    assert secure.address == ("127.0.0.1", 443)
    assert secure.tls is not None
    assert secure.tls.name == "127.0.0.1"


@pytest.mark.parametrize("text", ["", "nowhere", "host:0", "host:1-3", "unix:", "a.invalid:80", "127.0.0.1:99999"])
def test_other_targets_are_refused(text):
    with pytest.raises(UsageError, match="--target"):
        check_target(text, PLAIN)


@pytest.mark.parametrize(
    "text", ["", "localhost", "ftp://x", "http://", "http://h:99999", "http://a:b@h/", "http://a.invalid"]
)
def test_other_urls_are_refused(text):
    with pytest.raises(UsageError, match="--url"):
        url_target(text, "1.1", PLAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": ""}, "one of --target"),
        ({"url": "http://127.0.0.1/"}, "one of --target"),
        ({"target": "", "url": "http://127.0.0.1/", "http": "3"}, "--http"),
        ({"rate": "fast"}, "--rate"),
        ({"arrivals": "burst"}, "--arrivals"),
        ({"seconds": 0.0}, "--duration"),
        ({"warmup": -1.0}, "--warmup"),
        ({"timeout": 0.0}, "--timeout"),
        ({"timeout": float("nan")}, "--timeout"),
        ({"workers": 0}, "--workers"),
        ({"connections": -1}, "--connections"),
        ({"calibration": -1.0}, "--calibration"),
        ({"sender": "fast"}, "--sender"),
        ({"requests": Path("/nowhere")}, "nowhere"),
        ({"requests": Path("/x"), "policies": ("y",)}, "one of --requests"),
        ({"tokens": TokenOptions(mint=5)}, "--mint needs --key"),
        ({"tokens": TokenOptions(mint=5, file=Path("x"))}, "one of --tokens"),
        ({"tokens": TokenOptions(mix="none")}, "--mix needs tokens"),
        ({"tokens": TokenOptions(mint=5, key=Path("/nowhere"))}, "--key /nowhere"),
        ({"tokens": TokenOptions(mint=5, key=Path("/x"), algorithms="RS256=1,ES256=1")}, "--key holds one key"),
        ({"tokens": TokenOptions(mint=5, key=Path("/x"), algorithms="MD5")}, "--alg"),
        ({"tokens": TokenOptions(mint=1, jwks_out=Path("/nowhere/x"))}, "--jwks-out"),
        ({"tokens": TokenOptions(mint=-1)}, "--mint"),
        ({"tls": TlsFiles(wanted=True, authority="/nowhere")}, "--ca"),
        ({"tls": TlsFiles(wanted=True, insecure=True)}, "--insecure"),
    ],
)
def test_wrong_options_are_refused_by_name(change, message):
    with pytest.raises(UsageError, match=message):
        make_plan(replace(CHECK, **change))


def test_a_plan_holds_every_request_with_every_token(tmp_path: Path):
    key = SigningKey.generate("ES256", "k")
    private, jwks = tmp_path / "key.pem", tmp_path / "jwks.json"
    private.write_text(key.private_text())
    tokens = TokenOptions(mint=20, key=private, algorithms="ES256", kid="k", jwks_out=jwks, mix="good=9,none=1")
    plan = make_plan(replace(CHECK, rate="10..20/2", tokens=tokens, path="/x"))
    assert plan.rates == (10, 20)
    assert plan.token_kinds == {"good": 20, "none": 1}
    assert len(plan.corpus.payloads) == 21
    assert json.loads(jwks.read_text())["keys"][0]["kid"] == "k"


def test_new_keys_of_several_algorithms_have_ids_of_their_own(tmp_path: Path):
    jwks = tmp_path / "jwks.json"
    make_plan(replace(CHECK, tokens=TokenOptions(mint=4, algorithms="ES256=1,EdDSA=1", jwks_out=jwks)))
    assert {key["kid"] for key in json.loads(jwks.read_text())["keys"]} == {"test-key-es256", "test-key-eddsa"}
    assert jwks.stat().st_mode & 0o777 == 0o600


def test_requests_are_drawn_from_policies_reproducibly(tmp_path: Path):
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"rules": [{"to": [{"operation": {"paths": ["/only/here"], "methods": ["PUT"]}}]}]},
    }
    file = tmp_path / "p.json"
    file.write_text(json.dumps(policy))
    options = replace(CHECK, policies=(str(file),))
    plan = make_plan(options)
    assert any(b"/only/here" in payload and b"PUT" in payload for payload in plan.corpus.payloads)
    assert not all(b"/only/here" in payload and b"PUT" in payload for payload in plan.corpus.payloads)


def test_requests_for_rules_about_claims_carry_tokens_that_meet_or_miss_them(tmp_path: Path):
    key = SigningKey.generate("ES256", "k")
    private, policies = tmp_path / "key.pem", tmp_path / "p.yaml"
    private.write_text(key.private_text())
    policies.write_text(CLAIMS_POLICY.format(jwks=json.dumps(key_set(key))))
    tokens = TokenOptions(mint=3, key=private, algorithms="ES256", kid="k", issuer="me", mix="good=3,none=1")
    plan = make_plan(replace(CHECK, policies=(str(policies),), tokens=tokens))
    check = Authorizer(load([str(policies)]).resources).check
    with_token = [message for message in plan.corpus.payloads if b"Bearer " in message]
    verdicts = [CheckResponse.FromString(check(message)).status.code for message in with_token]
    # No token that was minted without regard to the rule would be allowed.
    assert verdicts.count(0) >= len(verdicts) / 4
    assert verdicts.count(PERMISSION_DENIED) > 0
    assert len(with_token) == 3 * (len(plan.corpus.payloads) - len(with_token)) == 12
    plain = make_plan(replace(CHECK, policies=(str(policies),)))
    assert not any(b"Bearer " in message for message in plain.corpus.payloads)


def test_connections_are_shared_out_over_workers():
    assert make_plan(replace(CHECK, workers=2)).wire.connections == 2
    assert make_plan(replace(CHECK, connections=1, workers=3)).wire.connections == 1
    url = LoadOptions(url="http://127.0.0.1/")
    assert make_plan(replace(url, workers=2)).wire.connections == 32


def test_slices_are_a_second_but_neither_fewer_than_ten_nor_more_than_a_hundred_and_twenty():
    assert slice_seconds(60) == 1
    assert slice_seconds(3) == pytest.approx(0.3)
    assert slice_seconds(3600) == 30


def test_the_sender_is_the_fastest_that_can_do_it():
    built, missing = (True, ""), (False, "no compiler")
    assert choose("auto", Protocol.CHECK, tls=False, native=built).name == "native"
    assert choose("auto", Protocol.CHECK, tls=True, native=built).name == "grpcio"
    assert choose("auto", Protocol.CHECK, tls=False, native=missing).name == "grpcio"
    assert "no compiler" in choose("auto", Protocol.HTTP1, tls=False, native=missing).reason
    assert choose("portable", Protocol.HTTP1, tls=False, native=built).name == "epoll"
    for wanted, protocol, tls, native, message in (
        ("native", Protocol.CHECK, True, built, "does not speak TLS"),
        ("native", Protocol.CHECK, False, missing, "no compiler"),
        ("auto", Protocol.H2C, False, missing, "no compiler"),
        ("auto", Protocol.H2C, True, built, "TLS"),
        ("portable", Protocol.H2C, False, built, "--http 2"),
        ("other", Protocol.CHECK, False, built, "--sender"),
    ):
        with pytest.raises(UsageError, match=message):
            choose(wanted, protocol, tls=tls, native=native)


def test_whether_the_native_sender_is_there_is_said_in_words():
    available, reason = sender_native.available()
    assert available or "install" in reason


def test_laying_out_a_test_does_not_import_envoys_api_which_takes_most_of_a_second():
    script = "import sys, extauthz.loadtest.plan, extauthz.loadtest.run; sys.exit('envoy_data_plane' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
