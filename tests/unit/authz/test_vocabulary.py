"""Fields and `when` keys to attributes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extauthz.authz.trust_domains import TrustDomains
from extauthz.authz.vocabulary import Vocabulary
from extauthz.istio.resources import Operation, Source
from extauthz.request import Request

VOCABULARY = Vocabulary(TrustDomains(("cluster.local",)), 0)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "source.user",
        "request.header[x]",
        "request.headers",
        "request.headers[]",
        "request.headers[x",
        "request.headers.x[a]",
        "request.headers[a\nb]",
        "request.auth.claims",
        "request.auth.claims[]",
        "request.auth.claims[a][]",
        "request.auth.claims[][a]",
        "request.auth.claims.a[b]",
        "request.auth.claims]a[",
        "request.auth.claims[",
        "experimental.envoy.filters.f",
        "experimental.envoy.filters.f[]",
        "experimental.envoy.filters.f[k",
        "experimental.other.f[k]",
        "destination.namespace",
        "Source.IP",
    ],
)
def test_a_key_that_cannot_be_compared_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        VOCABULARY.attribute(key)


@pytest.mark.parametrize(
    ("key", "claims"),
    [
        ("request.auth.claims[a]", {"a": "v"}),
        ("request.auth.claims[a][b]", {"a": {"b": "v"}}),
        ("request.auth.claims[a]b]", {"a]b": "v"}),
        ("request.auth.claims[a[b]", {"a[b": "v"}),
        ("request.auth.claims[[a]]", {"[a]": "v"}),
        ("request.auth.claims[a][b]c]", {"a][b]c": "v"}),
    ],
)
def test_brackets_nest_claims_unless_they_do_not_pair(
    allows: Callable[..., bool], key: str, claims: dict[str, object]
) -> None:
    assert allows(claims=claims, key=key, values=["v"])
    assert not allows(key=key, values=["v"])


def test_the_first_bracket_ends_the_name_of_a_filter(allows: Callable[..., bool]) -> None:
    request = Request(metadata={"envoy.filters.f": {"a][b": "v"}})
    assert allows(request, key="experimental.envoy.filters.f[a][b]", values=["v"])


def test_one_key_always_gives_the_same_attribute() -> None:
    assert VOCABULARY.attribute("request.headers[x-a]") is VOCABULARY.attribute("request.headers[x-a]")


def test_every_field_of_a_source_and_an_operation_is_known() -> None:
    assert {field.attribute_name for field in VOCABULARY.source_fields} == set(Source.__dataclass_fields__)
    assert {field.attribute_name for field in VOCABULARY.operation_fields} == set(Operation.__dataclass_fields__)
    names = [field.name for field in (*VOCABULARY.source_fields, *VOCABULARY.operation_fields)]
    assert {"notRemoteIpBlocks", "serviceAccounts", "notPaths", "hosts"} <= set(names)
