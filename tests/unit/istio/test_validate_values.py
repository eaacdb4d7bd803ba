"""Values that cannot work, each with the field that is named; and values that look odd and are fine."""

import io

import pytest

from extauthz.errors import PolicyError
from extauthz.istio.load import load


def problems(kind, spec):
    group = "networking" if kind in ("ServiceEntry", "DestinationRule") else "security"
    text = f"apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec:\n  {spec}\n"
    try:
        load(["-"], stdin=io.StringIO(text), policies_required=False)
    except PolicyError as error:
        return [(problem.line, problem.field, problem.code) for problem in error.problems]
    return []


def of_rule(rule):
    return problems("AuthorizationPolicy", f"rules: [{{{rule}}}]")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("remoteIpBlocks", "192.0.2.1,10.0.0.0/8"),
        ("ipBlocks", "10.0.0.0/33"),
        ("ipBlocks", "2001:db8::/129"),
        ("ipBlocks", "fe80::1%eth0"),
        ("ipBlocks", "10.0.0.0/"),
        ("ipBlocks", "10.0.0.0/08"),
        ("ipBlocks", "10.0.0.0/255.0.0.0"),
        ("notIpBlocks", "010.0.0.1"),
        ("notRemoteIpBlocks", "[::1]"),
        ("ipBlocks", "10.0.0.1:80"),
        ("ipBlocks", ""),
        ("serviceAccounts", "a*"),
        ("serviceAccounts", "a/b/c"),
        ("notServiceAccounts", "/a"),
        ("trustDomains", "a/b"),
        ("trustDomains", "a*b"),
        ("principals", ""),
        ("requestPrincipals", ""),
    ],
)
def test_a_source_with_a_value_that_cannot_work_is_refused(field, value):
    ((line, where, _),) = of_rule(f"from: [{{source: {{{field}: ['{value}']}}}}]")
    assert (line, where) == (5, f"spec.rules[0].from[0].source.{field}[0]")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ports", "65536"),
        ("ports", "http"),
        ("ports", "-1"),
        ("ports", "+80"),
        ("ports", " 80"),
        ("notPorts", "80-90"),
        ("hosts", ""),
        ("methods", ""),
        ("paths", ""),
        ("paths", "a/{*}"),
        ("paths", "//{*}"),
        ("paths", "/{*}//"),
        ("paths", "/a//{**}"),
        ("paths", "/ä/{*}"),
        ("paths", "/a/{*}.jpg"),
        ("paths", "/{**}/{*}"),
        ("paths", "/{**}/{**}"),
        ("paths", "/{*}/b*"),
        ("paths", "/{***}"),
        ("notPaths", "/{name}"),
        ("notPaths", "/a}"),
    ],
)
def test_an_operation_with_a_value_that_cannot_work_is_refused(field, value):
    ((line, where, _),) = of_rule(f"to: [{{operation: {{{field}: ['{value}']}}}}]")
    assert (line, where) == (5, f"spec.rules[0].to[0].operation.{field}[0]")


@pytest.mark.parametrize(
    "rule",
    [
        "from: [{source: {ipBlocks: ['192.0.2.99/24', '::/0', '::ffff:10.0.0.1', 0.0.0.0/0]}}]",
        "from: [{source: {serviceAccounts: [a, ns/b], trustDomains: ['*', 'a*', '*a', td]}}]",
        "to: [{operation: {ports: ['0', '65535']}}]",
        "to: [{operation: {paths: ['/{*}', '/{**}', '/{*}/', '/a/{*}/{**}', '/{**}/b', '/%C3%A4/{*}', '*', '/a*b']}}]",
        "when: [{key: 'request.auth.claims[a.b/c:d][e]', values: [x]}]",
        "when: [{key: 'request.headers[:path]', notValues: [x]}]",
        "when: [{key: 'experimental.envoy.filters.a.b[c]', values: ['[x]']}]",
        "when: [{key: destination.port, values: ['80']}, {key: remote.ip, values: ['10.0.0.0/8']}]",
    ],
)
def test_values_that_look_odd_and_work_are_left_alone(rule):
    assert of_rule(rule) == []


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("source.nope", "key"),
        ("request.header[x]", "key"),
        ("request.headers", "key"),
        ("request.headers[]", "key"),
        ("request.headers[a", "key"),
        ("request.auth.claims[]", "key"),
        ("request.auth.claims[a][]", "key"),
        ("request.auth.claims[][a]", "key"),
        ("experimental.envoy.filters.a", "key"),
        ("destination.labels[version]", "key"),
        ("Source.IP", "key"),
        ("source.ip", "values[0]"),
        ("remote.ip", "values[0]"),
        ("destination.ip", "values[0]"),
        ("destination.port", "values[0]"),
        ("source.serviceAccount", "values[0]"),
    ],
)
def test_a_condition_with_a_key_or_value_that_cannot_work_is_refused(key, field):
    ((_, where, _),) = of_rule(f"when: [{{key: '{key}', values: ['x*']}}]")
    assert where == f"spec.rules[0].when[0].{field}"


@pytest.mark.parametrize("member", ["namespaces", "serviceAccounts", "trustDomains", "principals", "requestPrincipals"])
@pytest.mark.parametrize("negated", [False, True])
def test_a_custom_policy_cannot_look_at_who_sends_a_request(member, negated):
    name = f"not{member[0].upper()}{member[1:]}" if negated else member
    rule = f"action: CUSTOM, provider: {{name: p}}, rules: [{{from: [{{source: {{{name}: [a]}}}}]}}]"
    assert problems("AuthorizationPolicy", f"{{{rule}}}") == [(5, f"spec.rules[0].from[0].source.{name}", "custom")]


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("other", ["principals", "notPrincipals", "namespaces", "notNamespaces"])
def test_service_accounts_stand_alone(other, negated):
    name = "notServiceAccounts" if negated else "serviceAccounts"
    assert of_rule(f"from: [{{source: {{{name}: [a], {other}: [b]}}}}]") == [
        (5, "spec.rules[0].from[0].source", "service-accounts")
    ]


def test_everything_that_is_wrong_is_said_at_once():
    rule = "from: [{source: {ipBlocks: [a, 10.0.0.1, b]}}], to: [{operation: {ports: [x]}}]"
    rule += ", when: [{key: nope, values: ['']}]"
    assert [field for _, field, _ in of_rule(rule)] == [
        "spec.rules[0].from[0].source.ipBlocks[0]",
        "spec.rules[0].from[0].source.ipBlocks[2]",
        "spec.rules[0].to[0].operation.ports[0]",
        "spec.rules[0].when[0].key",
        "spec.rules[0].when[0].values[0]",
    ]


PORT = "ports: [{number: 443, name: tls, protocol: TLS}]"


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("ServiceEntry", f"{{hosts: ['*'], {PORT}}}", "hosts[0]"),
        ("ServiceEntry", f"{{hosts: ['*.example.com'], {PORT}, resolution: DNS}}", "hosts[0]"),
        ("ServiceEntry", f"{{hosts: [h.example], {PORT}, location: OUTSIDE}}", "location"),
        ("ServiceEntry", "{hosts: [h.example], ports: [{number: 65536, name: a}]}", "ports[0].number"),
        ("ServiceEntry", "{hosts: [h.example], ports: [{number: 1, name: a, protocol: SMTP}]}", "ports[0].protocol"),
        (
            "ServiceEntry",
            f"{{hosts: [h.example], {PORT}, resolution: STATIC, endpoints: [{{address: a.example}}]}}",
            "endpoints[0].address",
        ),
        (
            "ServiceEntry",
            f"{{hosts: [h.example], {PORT}, resolution: DNS, endpoints: [{{address: a, ports: {{x: 1}}}}]}}",
            "endpoints[0].ports.x",
        ),
        ("DestinationRule", "{host: 'a b'}", "host"),
        (
            "DestinationRule",
            "{host: h.example, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c}}}",
            "trafficPolicy.tls.privateKey",
        ),
        (
            "DestinationRule",
            "{host: h.example, trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: MUTUAL, "
            "privateKey: /k}}]}}",
            "trafficPolicy.portLevelSettings[0].tls.clientCertificate",
        ),
        (
            "DestinationRule",
            "{host: h.example, trafficPolicy: {tls: {mode: SIMPLE, credentialName: s, caCertificates: /c}}}",
            "trafficPolicy.tls.caCertificates",
        ),
    ],
)
def test_what_a_key_set_cannot_be_fetched_through_is_refused(kind, spec, field):
    assert [where for _, where, _ in problems(kind, spec)] == [f"spec.{field}"]
