"""Conditions on the peer: principals, namespaces, service accounts, trust domains."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from extauthz.authz.trust_domains import TrustDomains
from extauthz.request import Request

Allows = Callable[..., bool]

BOOKINFO = "spiffe://cluster.local/ns/default/sa/productpage"


@pytest.mark.parametrize(
    ("value", "principal", "matches"),
    [
        ("cluster.local/ns/default/sa/productpage", BOOKINFO, True),
        ("cluster.local/ns/default/*", BOOKINFO, True),
        ("*/sa/productpage", BOOKINFO, True),
        ("*", BOOKINFO, True),
        ("*", "CN=x", True),
        ("*", "", False),
        ("*page", "CN=page", False),
        ("*page", "spiffe://page", True),
        ("*/page", "spiffe:///page", True),
        ("*//page", "spiffe://page", False),
        ("*b", "spiffe://a\nb", False),
        ("a*", "spiffe://a\nb", True),
        ("spiffe://cluster.local/ns/default/sa/productpage", BOOKINFO, False),
        ("CN=x", "CN=x", False),
        ("*.*", "spiffe://a.*", True),
        ("*.*", "spiffe://a.b", False),
    ],
)
def test_a_principal_is_compared_behind_its_scheme(allows: Allows, value: str, principal: str, matches: bool) -> None:
    request = Request(peer_principals=(principal,))
    assert allows(request, principals=[value]) is matches
    assert allows(request, not_principals=[value]) is not matches
    assert allows(request, key="source.principal", values=[value]) is matches


def test_any_of_the_peers_names_may_match(allows: Allows) -> None:
    request = Request(peer_principals=("spiffe://td/ns/a/sa/b", "spiffe://td/ns/c/sa/d", "dns.example", "CN=x"))
    assert allows(request, principals=["td/ns/c/sa/d"])
    assert allows(request, namespaces=["c"])
    assert allows(request, service_accounts=["c/d"])
    assert not allows(request, service_accounts=["a/d"])
    assert not allows(request, not_namespaces=["c"])


def test_without_a_client_certificate_nothing_matches(allows: Allows) -> None:
    for field in ("principals", "namespaces", "trust_domains"):
        assert not allows(**{field: ["*"]})
        assert allows(**{f"not_{field}": ["*"]})
    assert not allows(service_accounts=["a/b"])
    assert allows(not_service_accounts=["a/b"])


PRINCIPALS = [
    BOOKINFO,
    "spiffe://cluster.local/ns/default/sa/productpage/",
    "spiffe://cluster.local/ns/default/sa/productpage/x",
    "spiffe://cluster.local/ns/default/sa/productpage-x",
    "spiffe://cluster.local/ns/default/x/sa/productpage",
    "spiffe://cluster.local/ns/default//sa/productpage",
    "spiffe://cluster.local/ns/default///sa/productpage",
    "spiffe://cluster.local/x/ns/default/sa/productpage",
    "spiffe:///ns/default/sa/productpage",
    "spiffe:////ns/default/sa/productpage",
    "spiffe://ns/default/sa/productpage",
    "spiffe://x/ns/default",
    "spiffe://x/ns/default/",
    "spiffe://x/ns/default/sa",
    "spiffe://x/ns/ns/default/sa/productpage",
    "spiffe://x/ns/default/ns/default/sa/productpage",
    "spiffe://x/ns/default/sa/sa/productpage",
    "spiffe://x/ns/def.ault/sa/productpage",
    "spiffe://x/ns/default\n/sa/productpage",
    "spiffe://x\n/ns/default/sa/productpage",
    "https://x/ns/default/sa/productpage",
    "/ns/default/sa/productpage",
    "ns/default/sa/productpage",
    "CN=x",
    "",
]


@pytest.mark.parametrize("principal", PRINCIPALS)
@pytest.mark.parametrize(
    "value", ["default", "def*", "*ault", "d*t", "d*a*t", "*", "def.ault", "ns", "default/sa", "x*a", "default/ns/d*"]
)
def test_a_namespace_is_found_as_istios_expression_finds_it(allows: Allows, value: str, principal: str) -> None:
    expression = ".*/ns/{}/.*".format(".*".join(map(re.escape, value.split("*"))))
    expected = re.fullmatch(expression, principal) is not None
    request = Request(peer_principals=(principal,))
    assert allows(request, namespaces=[value]) is expected
    assert allows(request, namespaces=[value, "never"]) is expected
    assert allows(request, key="source.namespace", not_values=[value]) is not expected


@pytest.mark.parametrize("principal", PRINCIPALS)
@pytest.mark.parametrize(
    "value", ["productpage", "default/productpage", "default/sa", "ns/productpage", "def.ault/productpage", "x/x"]
)
def test_a_service_account_is_found_as_istios_expression_finds_it(allows: Allows, value: str, principal: str) -> None:
    namespace, slash, name = value.partition("/")
    if not slash:
        namespace, name = "default", value
    expression = f"spiffe://.+/ns/{re.escape(namespace)}/(.+/|)sa/{re.escape(name)}(/.+)?"
    expected = re.fullmatch(expression, principal) is not None
    request = Request(peer_principals=(principal,))
    assert allows(request, namespace="default", service_accounts=[value]) is expected
    assert allows(request, namespace="default", key="source.serviceAccount", not_values=[value]) is not expected


@pytest.mark.parametrize(
    "principal", [*PRINCIPALS, "spiffe://a/b/ns", "spiffe://xa/b/", "spiffe://a\nb/x", "spiffe://a/\n"]
)
@pytest.mark.parametrize(
    "value", ["cluster.local", "x", "*", "x*", "*x", "*.local", "clu*", "a/b", "a/b*", "*a/b", "*/b", "a*"]
)
def test_a_trust_domain_is_found_as_istios_expression_finds_it(allows: Allows, value: str, principal: str) -> None:
    if value == "*":
        expression = re.compile(r"spiffe://.*", re.DOTALL)
    elif "*" in value:
        expression = re.compile("spiffe://{}/.*".format("[^/]*".join(map(re.escape, value.split("*")))))
    else:
        expression = re.compile(f"spiffe://{re.escape(value)}/.*", re.DOTALL)
    expected = expression.fullmatch(principal) is not None
    request = Request(peer_principals=(principal,))
    assert allows(request, key="source.trustDomain", values=[value]) is expected
    if "/" not in value:
        assert allows(request, not_trust_domains=[value, "never"]) is not expected


@pytest.mark.parametrize(
    ("names", "principal", "stands_for"),
    [
        (("cluster.local",), "cluster.local/ns/a/sa/b", ["cluster.local/ns/a/sa/b"]),
        (("cluster.local",), "*", ["*"]),
        (("cluster.local",), "*/ns/a/sa/b", ["*/ns/a/sa/b"]),
        (("td2", "td1"), "td1/ns/a/sa/b", ["td2/ns/a/sa/b", "td1/ns/a/sa/b"]),
        (("td1",), "cluster.local/ns/a/sa/b", ["td1/ns/a/sa/b"]),
        (("td2", "foo-td1", "x"), "*-td1/ns/a/sa/b", ["td2/ns/a/sa/b", "*-td1/ns/a/sa/b", "x/ns/a/sa/b"]),
        (("td1", "td2"), "other/ns/a/sa/b", ["other/ns/a/sa/b"]),
        (("new", "old-td", "x-td"), "*-td/ns/a/sa/b", ["new/ns/a/sa/b", "*-td/ns/a/sa/b"]),
        (("td1", "old"), "td*/ns/a/sa/b", ["td1/ns/a/sa/b", "old/ns/a/sa/b"]),
        (("td1", "old*"), "older/ns/a/sa/b", ["td1/ns/a/sa/b", "old*/ns/a/sa/b"]),
        (("td1", "td2"), "td1/a/b", ["td1/a/b"]),
        (("td1", "td2"), "/ns/a/sa/b", ["/ns/a/sa/b"]),
    ],
)
def test_a_principal_of_the_mesh_stands_for_the_same_identity_in_every_alias(
    names: tuple[str, ...], principal: str, stands_for: list[str]
) -> None:
    assert list(TrustDomains(names).principals(principal)) == stands_for


def test_a_trust_domain_that_is_an_alias_stands_for_all(allows: Allows) -> None:
    options = {"trust_domain": "new", "trust_domain_aliases": ("old",)}
    request = Request(peer_principals=("spiffe://new/ns/a/sa/b",))
    assert allows(request, trust_domains=["old"], options=options)
    assert not allows(request, trust_domains=["cluster.local"], options=options)
    assert allows(request, principals=["old/ns/a/sa/b"], options=options)
    assert allows(request, principals=["cluster.local/ns/a/sa/b"], options=options)
