"""Files to resources, and all problems of all files."""

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import PolicyError
from extauthz.istio.load import load
from extauthz.istio.resources import Action, Resolution, TlsMode

REQUEST_AUTHENTICATION = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: jwt-example
  namespace: istio-system
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: "{}"
  creationTimestamp: "2024-05-01T10:00:00Z"
  generation: 2
  resourceVersion: "123"
  uid: 0d6e1c1e-0000-4000-8000-000000000000
  managedFields:
  - apiVersion: security.istio.io/v1
    manager: kubectl
spec:
  selector:
    matchLabels:
      app: istio-ingressgateway
  jwtRules:
  - issuer: testing@secure.istio.io
    jwks: '{"keys": []}'
    fromHeaders: [{name: x-jwt, prefix: "Bearer "}]
    fromParams: [t]
    fromCookies: [c]
    audiences: [a]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-sub, claim: sub}]
    forwardOriginalToken: true
    timeout: 1m30s
    spaceDelimitedClaims: [scp]
status: {}
"""

POLICY = """\
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: test-exclude
  namespace: istio-system
spec:
  action: DENY
  rules:
  - from:
    - source:
        notRequestPrincipals: ["*"]
    to:
    - operation:
        notPaths: ["/productpage"]
    when:
    - key: request.headers[x]
      values: [a]
"""


def written(directory, text, name="policy.yaml"):
    file = directory / name
    file.write_text(text)
    return str(file)


def problems(directory, text):
    with pytest.raises(PolicyError) as raised:
        load([written(directory, text)])
    return [str(problem).replace(str(directory) + "/", "") for problem in raised.value.problems]


def test_resources_pasted_from_a_cluster_load(tmp_path):
    resources = load([written(tmp_path, f"{REQUEST_AUTHENTICATION}---\n{POLICY}")]).resources
    (authentication,) = resources.request_authentications
    (rule,) = authentication.jwt_rules
    assert authentication.selector == {"app": "istio-ingressgateway"}
    assert authentication.metadata.creation_timestamp == "2024-05-01T10:00:00Z"
    assert rule.issuer == "testing@secure.istio.io"
    assert rule.timeout == 90
    assert rule.forward_original_token
    assert (rule.from_headers[0].name, rule.from_headers[0].prefix) == ("x-jwt", "Bearer ")
    (policy,) = resources.authorization_policies
    assert policy.action is Action.DENY
    assert policy.rules[0].sources[0].not_request_principals == ("*",)
    assert policy.rules[0].operations[0].not_paths == ("/productpage",)
    assert policy.rules[0].when[0].key == "request.headers[x]"


def test_fields_know_their_line(tmp_path):
    (policy,) = load([written(tmp_path, f"# first\n---\n{POLICY}")]).resources.authorization_policies
    assert policy.origin.line(("spec", "rules", 0, "to", 0, "operation", "notPaths", 0)) == 16
    assert policy.origin.line(("spec", "rules", 0, "to", 7)) == 14
    assert policy.origin.line(("metadata", "name")) == 6


def test_directories_lists_and_json_are_read_once(tmp_path):
    data = tmp_path / "..data"
    data.mkdir()
    written(data, POLICY)
    (tmp_path / "policy.yaml").symlink_to(data / "policy.yaml")
    items = '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "security.istio.io/v1", "kind": '
    items += '"AuthorizationPolicy", "metadata": {"name": "listed"}, "spec": {}}]}'
    written(tmp_path, items, "list.json")
    written(tmp_path, "not: read", "notes.txt")
    loaded = load([str(tmp_path), str(tmp_path / "policy.yaml")])
    assert [policy.metadata.name for policy in loaded.resources.authorization_policies] == ["listed", "test-exclude"]
    assert loaded.resources.authorization_policies[0].metadata.namespace == "default"
    assert len(loaded.files) == 2


def test_other_kinds_are_counted_and_ignored(tmp_path):
    loaded = load([written(tmp_path, f"{POLICY}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\n")])
    assert loaded.ignored == {"ConfigMap": 1}


def test_standard_input_is_read():
    assert load(["-"], stdin=io.StringIO(POLICY)).resources.authorization_policies[0].origin.file == "<stdin>"


def test_entries_and_rules_of_egress_are_read(tmp_path):
    text = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: keys, namespace: shop}
spec:
  hosts: [keys.example]
  ports: [{number: 443, name: https, protocol: HTTPS, targetPort: 8443}]
  resolution: STATIC
  location: MESH_EXTERNAL
  endpoints: [{address: 192.0.2.1, ports: {https: 8444}, weight: 2}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: keys, namespace: shop}
spec:
  host: keys.example
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    tls: {mode: SIMPLE, sni: k, insecureSkipVerify: false}
    portLevelSettings: [{port: {number: 443}, tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k}}]
"""
    resources = load([written(tmp_path, text)], policies_required=False).resources
    (entry,) = resources.service_entries
    assert entry.resolution is Resolution.STATIC
    assert entry.endpoints[0].ports == {"https": 8444}
    (rule,) = resources.destination_rules
    assert rule.tls is not None
    assert (rule.tls.mode, rule.tls.sni) == (TlsMode.SIMPLE, "k")
    assert rule.port_tls[0].port == 443


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            POLICY.replace("notPaths", "notpaths"),
            "policy.yaml:14: spec.rules[0].to[0].operation.notpaths: unknown field; ",
        ),
        (POLICY.replace("notPaths", "notpaths"), "did you mean notPaths?"),
        (
            POLICY.replace("  action: DENY", "  acton: DENY"),
            "policy.yaml:7: spec.acton: unknown field; did you mean action?",
        ),
        (POLICY.replace("DENY", "BLOCK"), "policy.yaml:7: spec.action: unknown value 'BLOCK'; one of ALLOW, DENY,"),
        (POLICY.replace('["/productpage"]', "/productpage"), "must be a list, found the text '/productpage'"),
        (POLICY.replace('["/productpage"]', "[5]"), 'must be text, found the number 5; write "5" in quotes'),
        (POLICY.replace('notPaths: ["/productpage"]', ""), "operation: must have at least one field (hosts, notHosts,"),
        (POLICY + "  - null\n", "spec.rules[1]: must not be empty"),
        (POLICY.replace("AuthorizationPolicy", "AuthorisationPolicy"), None),
        (POLICY.replace("AuthorizationPolicy", "authorizationpolicy"), "did you mean AuthorizationPolicy?"),
        (POLICY.replace("security.istio.io/v1beta1", "networking.istio.io/v1"), "does not go with kind"),
        (POLICY.replace("  name: test-exclude\n", ""), "metadata.name: a resource needs a name"),
        (f"{POLICY}---\n{POLICY}", "already defined at"),
        ("kind: AuthorizationPolicy", "a Kubernetes resource needs apiVersion and kind"),
        ("- a", "a Kubernetes resource is a mapping, found a list"),
        ("a: [", "policy.yaml:2: not readable as YAML"),
        ("", "no RequestAuthentication or AuthorizationPolicy found"),
        (REQUEST_AUTHENTICATION.replace("timeout", "jwksURI"), "did you mean jwksUri?"),
        (REQUEST_AUTHENTICATION.replace("1m30s", "90"), "must be text"),
        (REQUEST_AUTHENTICATION.replace("1m30s", "90x"), "'90x' is no duration"),
    ],
)
def test_each_problem_is_one_line_with_place_and_reason(tmp_path, text, said):
    found = problems(tmp_path, text)
    if said is not None:
        assert any(said in line for line in found), found


def test_all_problems_of_all_files_are_told_at_once(tmp_path):
    written(tmp_path, POLICY.replace("notPaths", "nopaths"), "a.yaml")
    written(tmp_path, "x: [", "b.yaml")
    with pytest.raises(PolicyError) as raised:
        load([str(tmp_path), str(tmp_path / "missing.yaml")])
    assert {problem.file.rpartition("/")[2] for problem in raised.value.problems} == {
        "a.yaml",
        "b.yaml",
        "missing.yaml",
    }


def test_an_empty_directory_is_an_error(tmp_path):
    with pytest.raises(PolicyError, match="no policy files"):
        load([str(tmp_path)])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["spec", "rules", "from", "source", "paths", "jwtRules", "issuer", "metadata", "name", "when"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(["AuthorizationPolicy", "RequestAuthentication", "ServiceEntry", "DestinationRule", "List"]),
)
def test_any_document_loads_or_is_refused(value, kind):
    group = "networking" if kind in ("ServiceEntry", "DestinationRule") else "security"
    document = {"apiVersion": f"{group}.istio.io/v1", "kind": kind, "spec": value, "metadata": {"name": "n"}}
    with contextlib.suppress(PolicyError):
        load(["-"], stdin=io.StringIO(json.dumps(document)))
