"""What Envoy does to requests before anybody is asked."""

import pytest

from extauthz.envoy_http import filter_headers, normalize_path, split_target


@pytest.mark.parametrize(
    ("raw", "normalized"),
    [
        ("/a/../b//c%2Fd?q=%41&z", "/b//c%2Fd?q=%41&z"),
        ("/product%70age", "/productpage"),
        ("/%2e/productpage", "/productpage"),
        ("/a%2f..%2fproductpage", "/a%2f..%2fproductpage"),
        ("/a/..;x/b", "/b"),
        ("/%2e%2e;/b", "/..;/b"),
        ("/x\\y", "/x/y"),
        ('/a"b', "/a%22b"),
        ("/a/.", "/a/"),
        ("/..", "/"),
        ("/", "/"),
        ("/a?x#y", None),
        ("/a%00", None),
        ("/é", None),
        ("*", None),
    ],
)
def test_paths_are_normalized_as_istio_configures_envoy(raw, normalized):
    assert normalize_path(raw) == normalized


def test_an_absolute_target_gives_its_authority():
    assert split_target("http://o.example/x?y") == ("http", "o.example", "/x?y")
    assert split_target("http://o.example") == ("http", "o.example", "/")
    assert split_target("/x") == ("", None, "/x")


def test_known_headers_are_joined_and_others_keep_their_lines():
    lines = filter_headers([("Authorization", "a"), ("X-H", " 1\t"), ("authorization", "b"), ("x-h", "2"), ("Te", "x")])
    assert lines == {"authorization": ["a,b"], "x-h": ["1", "2"]}


def test_a_referer_that_is_no_url_is_removed():
    assert filter_headers([("referer", "a b")]) == {}
    assert filter_headers([("referer", "http://a/")]) == {"referer": ["http://a/"]}
