"""`extauthz jwks` with the policies of the story: a short name in the cluster, and hosts outside by TLS origination."""

import json
import subprocess
import sys

import pytest

from extauthz.cli import main

AUTHENTICATION = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt-example, namespace: istio-system}}
spec:
  jwtRules:
  - issuer: testing@secure.istio.io
    jwksUri: {uri}
---
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: keys, namespace: istio-system}}
spec:
  hosts: ["{host}"]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports:
  - {{number: {number}, name: web, protocol: HTTP, targetPort: {port}}}
  endpoints: [{{address: 127.0.0.1}}]
---
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: keys, namespace: istio-system}}
spec:
  host: "*.example.com"
  trafficPolicy:
    portLevelSettings:
    - port: {{number: 443}}
      tls: {{mode: SIMPLE, caCertificates: {ca}, sni: keys.example.com, subjectAltNames: [keys.example.com]}}
"""


@pytest.fixture
def jwks(tmp_path):
    def run(text, *options):
        (tmp_path / "policies.yaml").write_text(text)
        command = [sys.executable, "-m", "extauthz", "jwks", str(tmp_path / "policies.yaml"), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_a_short_name_is_fetched_through_its_service_entry(jwks, serve, key):
    server = serve()
    server.serve(key, cache_control="max-age=600")
    uri = "http://nginx-proxy/get_jwks"
    entry = ENTRY.format(host="nginx-proxy.istio-system.svc.cluster.local", number=80, port=server.port)
    done = jwks(AUTHENTICATION.format(uri=uri) + entry, "--jwks-egress", "mesh", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads(done.stdout)
    assert (report["uri"], report["issuers"]) == (uri, ["testing@secure.istio.io"])
    assert report["steps"][0] == "by ServiceEntry istio-system/keys"
    assert [(one["kid"], one["alg"]) for one in report["keys"]] == [("k", "ES256")]
    assert report["lifetime"] == 600
    assert [path for path, _ in server.requests] == ["/get_jwks"]


def test_plain_http_becomes_tls_by_a_destination_rule(jwks, serve, key, authority):
    server = serve(authority.context("s", "keys.example.com"))
    server.serve(key)
    policies = AUTHENTICATION.format(uri="http://keys.example.com:443/jwks")
    entry = ENTRY.format(host="keys.example.com", number=443, port=server.port)
    done = jwks(policies + entry + RULE.format(ca=authority.file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by DestinationRule istio-system/keys" in done.stdout
    assert "200 from keys.example.com at 127.0.0.1" in done.stdout
    assert "over TLS" in done.stdout
    # Without the rule the server is spoken to in plain text, and says no.
    done = jwks(policies + entry)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "write https://, or add a DestinationRule" in done.stdout


def test_where_egress_is_the_meshs_a_missing_service_entry_is_said(jwks):
    done = jwks(AUTHENTICATION.format(uri="https://keys.example.com/jwks"), "--jwks-egress", "mesh")
    assert done.returncode == 1
    assert "FAILED: keys.example.com:443 is outside the mesh and no ServiceEntry has it" in done.stdout
    assert done.stderr == ""


@pytest.fixture
def fetched(capsys):
    """`extauthz jwks` in this process: exit status, output, errors."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["jwks", *arguments])
        return (ended.value.code, *capsys.readouterr())

    return run


def test_nothing_that_a_key_server_says_acts_on_a_terminal(fetched, serve, key):
    server = serve()
    evil = "\x1b[2J\u202e"
    server.serve(key.jwk(kid=evil), key.jwk(alg=f"ES{evil}"), {"kty": evil, "kid": evil})
    status, output, _ = fetched(server.url("/keys?\u202e"))
    assert status == 0, output
    assert "key \\x1b[2J\\u202e: EC P-256" in output
    assert output.replace("\n", "").isprintable()


def test_exit_statuses_tell_fetched_from_failed_and_from_misused(fetched, serve, key):
    server = serve()
    server.serve(key)
    server.paths["/gone"] = (404, {}, b"")
    assert fetched(server.url().replace("http", "HTTP"))[0] == 0
    status, output, _ = fetched(server.url(), server.url("/gone"))
    assert status == 1
    assert "key k: EC P-256, alg ES256" in output
    assert "FAILED: 127.0.0.1 answered 404 Not Found (nothing is at that path)" in output
    for wrong, said in (("ftp://host/keys", "not http or https"), ("no-such-file.yaml", "no-such-file.yaml")):
        status, output, errors = fetched(wrong)
        assert (status, output) == (2, "")
        assert said in errors
