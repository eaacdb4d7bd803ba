"""Conditions on texts of the request: path, host, method, headers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extauthz.request import ChangedRequest, Changes, Request, wire_text

Allows = Callable[..., bool]


@pytest.mark.parametrize("path", ["/productpage", "/productpage?x=1", "/productpage?", "/productpage#f?x"])
def test_a_path_is_compared_without_query_and_fragment(allows: Allows, path: str) -> None:
    assert allows(Request(path=path), paths=["/productpage"])
    assert not allows(Request(path=path), not_paths=["/productpage"])


@pytest.mark.parametrize(
    "path", ["/productpage/", "/Productpage", "//productpage", "/productpage%2f", "/productpage;x"]
)
def test_a_path_that_differs_in_any_character_is_another_path(allows: Allows, path: str) -> None:
    assert not allows(Request(path=path), paths=["/productpage"])


@pytest.mark.parametrize(
    ("value", "matched"),
    [
        ("/service/*health", ["/service/*health"]),
        ("/service/health*", ["/service/health123", "/service/health"]),
        ("*/health", ["/service/health", "/health"]),
        ("*v1*", ["/xv1*"]),
        ("/project/.*/issues", ["/project/.*/issues"]),
        ("/a?", []),
        ("/{*}/issues/{**}", ["/p/issues/7", "/p/issues/"]),
    ],
)
def test_stars_in_paths(allows: Allows, value: str, matched: list[str]) -> None:
    paths = ["/service/123health", "/service/*health", "/service/health123", "/service/health", "/health", "/xv1*",
             "/project/p/issues", "/project/.*/issues", "/a", "/a*", "/p/issues/7", "/p/issues/", "/"]  # fmt: skip
    assert [path for path in paths if allows(Request(path=path), paths=[value])] == matched


def test_a_connect_request_has_no_path(allows: Allows) -> None:
    request = Request(method="CONNECT", path="")
    assert not allows(request, paths=["*", "/{**}"])
    assert not allows(request, key="request.headers[:path]", values=["*"])


@pytest.mark.parametrize(
    ("host", "value", "matches"),
    [
        ("httpbin.foo:8000", "httpbin.foo", False),
        ("httpbin.foo:8000", "HTTPBIN.foo:8000", True),
        ("HTTPBIN.FOO:8000", "*.foo:8000", True),
        ("httpbin.foo:8000", "httpbin.*", True),
        ("", "*", True),
        ("h\u00c9", "H\u00e9", False),
    ],
)
def test_hosts_are_compared_with_their_port_whatever_the_case(
    allows: Allows, host: str, value: str, matches: bool
) -> None:
    assert allows(Request(host=wire_text(host)), hosts=[value]) is matches


def test_methods_are_case_sensitive_and_a_star_is_any(allows: Allows) -> None:
    assert allows(Request(method="GET"), methods=["GET"])
    assert not allows(Request(method="GET"), methods=["get"])
    assert allows(Request(method="PATCH"), methods=["P*"])
    assert allows(Request(method="GET"), methods=["*"])
    assert not allows(Request(method="GET"), not_methods=["*"])


def test_each_line_of_a_header_is_compared_by_itself(allows: Allows) -> None:
    request = Request(headers={"x-h": ("v", "w")})
    assert allows(request, key="request.headers[x-h]", values=["v"])
    assert allows(request, key="request.headers[X-H]", values=["w*"])
    assert not allows(request, key="request.headers[x-h]", values=["v,w", "V"])
    assert not allows(request, key="request.headers[x-h]", not_values=["w"])


def test_a_present_header_may_be_empty_and_an_absent_one_never_matches(allows: Allows) -> None:
    empty = Request(headers={"x-h": ("",)})
    assert allows(empty, key="request.headers[x-h]", values=["*"])
    assert not allows(empty, key="request.headers[x-h]", not_values=["*"])
    assert not allows(key="request.headers[x-h]", values=["*"])
    assert allows(key="request.headers[x-h]", not_values=["*"])


def test_header_values_are_compared_by_their_bytes(allows: Allows) -> None:
    assert allows(Request(headers={"x-h": ("\u00c3\u00a9",)}), key="request.headers[x-h]", values=["\u00e9"])
    assert not allows(Request(headers={"x-h": ("\u00e9",)}), key="request.headers[x-h]", values=["\u00e9"])


def test_pseudo_headers_and_host_are_headers(allows: Allows) -> None:
    request = Request(method="GET", path="/a?b", host="h.example", scheme="https")
    assert allows(request, key="request.headers[:path]", values=["/a?b"])
    assert allows(request, key="request.headers[:method]", values=["GET"])
    assert allows(request, key="request.headers[:scheme]", values=["https"])
    assert allows(request, key="request.headers[:authority]", values=["h.example"])
    assert allows(request, key="request.headers[Host]", values=["h.example"])
    assert not allows(request, key="request.headers[host]", values=["H.example"])
    assert allows(Request(host=""), key="request.headers[host]", values=["*"])


def test_conditions_see_the_request_as_authentication_left_it(allows: Allows) -> None:
    received = Request(path="/a?access_token=t", headers={"authorization": ("Bearer t",)})
    changed = ChangedRequest(received, Changes({"authorization": (), "x-sub": ("u",)}, path="/a?"))
    assert allows(changed, key="request.headers[authorization]", not_values=["*"])
    assert allows(changed, key="request.headers[x-sub]", values=["u"])
    assert allows(changed, key="request.headers[:path]", values=["/a?"])


def test_the_server_name_is_compared_as_it_is(allows: Allows) -> None:
    request = Request(server_name="a.example")
    assert allows(request, key="connection.sni", values=["*.example"])
    assert not allows(request, key="connection.sni", values=["A.example"])
    assert not allows(key="connection.sni", values=["*"])
    assert allows(key="connection.sni", not_values=["*"])


def test_metadata_of_filters_is_a_string_or_a_list_in_brackets(allows: Allows) -> None:
    key = "experimental.envoy.filters.a.b[c]"

    def request(value: object) -> Request:
        return Request(metadata={"envoy.filters.a.b": {"c": value}})

    assert allows(request("v"), key=key, values=["v"])
    assert allows(request("v"), key=key, values=["*"])
    assert not allows(request("v"), key=key, values=["[v]"])
    assert allows(request([5.0, "v"]), key=key, values=["[v*]"])
    assert not allows(request([5.0, "v"]), key=key, values=["v"])
    assert not allows(request(5.0), key=key, values=["5", "*"])
    assert not allows(key=key, values=["*"])
    assert allows(key=key, not_values=["*", "[*]"])
