"""Values of policies as Envoy matchers: the forms that istiod writes."""

from __future__ import annotations

import pytest

from extauthz.errors import UsageError
from extauthz.mesh import matchers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("*", {"safeRegex": {"regex": ".+"}}),
        ("*x", {"suffix": "x"}),
        ("x*", {"prefix": "x"}),
        ("x", {"exact": "x"}),
        ("*a*", {"suffix": "a*"}),
        ("a*b", {"exact": "a*b"}),
        ("", {"exact": ""}),
    ],
)
def test_a_star_is_understood_at_either_end_only(value: str, expected: dict[str, object]) -> None:
    assert matchers.text(value).to_dict() == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("*", {"safeRegex": {"regex": ".+"}}),
        ("td/ns/a/sa/b", {"exact": "spiffe://td/ns/a/sa/b"}),
        ("td/*", {"prefix": "spiffe://td/"}),
        ("*/b.c", {"safeRegex": {"regex": r"spiffe://.*/b\.c"}}),
    ],
)
def test_principals_get_the_scheme_that_policies_leave_out(value: str, expected: dict[str, object]) -> None:
    assert matchers.spiffe(value).to_dict() == expected


def test_a_header_star_asks_for_presence_alone() -> None:
    assert matchers.header("x-h", "*").to_dict() == {"name": "x-h", "presentMatch": True}
    assert matchers.header("x-h", "*v").to_dict() == {"name": "x-h", "stringMatch": {"suffix": "v"}}


def test_a_claim_is_a_text_or_a_member_of_a_list() -> None:
    wanted = {"stringMatch": {"exact": "v"}}
    assert matchers.claim(["a", "b"], ["v"]).to_dict() == {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, {"key": "a"}, {"key": "b"}],
        "value": {"orMatch": {"valueMatchers": [{"listMatch": {"oneOf": wanted}}, wanted]}},
    }


@pytest.mark.parametrize(
    ("value", "address", "length"),
    [("10.0.0.1", "10.0.0.1", 32), ("10.1.2.3/8", "10.1.2.3", 8), ("::1", "::1", 128), ("0.0.0.0/0", "0.0.0.0", 0)],
)
def test_an_address_alone_is_a_block_of_one(value: str, address: str, length: int) -> None:
    assert matchers.address_range(value).to_dict() == {"addressPrefix": address, "prefixLen": length}


@pytest.mark.parametrize("value", ["", "x", "10.0.0.0/33", "::1/129", "10.0.0.0/x", "10.0.0.0/-1", "10.0.0.1,10.0.0.2"])
def test_what_is_no_address_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="neither an IP address nor a block"):
        matchers.address_range(value)


def test_quoting_leaves_nothing_special() -> None:
    assert matchers.quoted(r"a.b+c*(d)[e]{f}|^$?\g") == r"a\.b\+c\*\(d\)\[e\]\{f\}\|\^\$\?\\g"
