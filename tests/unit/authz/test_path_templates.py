"""Path templates: `{*}` and `{**}`."""

from __future__ import annotations

import pytest

from extauthz.authz.path_templates import TemplateTree, parse_path_template


def matching(path: str, *templates: str) -> set[str]:
    tree = TemplateTree((parse_path_template(template), template) for template in templates)
    return set(tree.find_all(path))


# Seen on Envoy 1.40: path, then for each template whether it matched.
TEMPLATES = [
    "/a/{*}",
    "/a/{**}",
    "/{**}/b",
    "/a/{*}/b/{**}/c/d",
    "/{*}",
    "/{**}",
    "/a/{*}/",
    "/a/{**}/",
    "/x/{*}/y/{**}/",
]
OBSERVED = {
    "/": ["/{**}"],
    "//": ["/{**}"],
    "/a": ["/{*}", "/{**}"],
    "/a/": ["/a/{**}", "/{**}"],
    "/a/x": ["/a/{*}", "/a/{**}", "/{**}"],
    "/a/x/": ["/a/{**}", "/{**}", "/a/{*}/", "/a/{**}/"],
    "/a//x": ["/a/{**}", "/{**}"],
    "/a/x=y*z:@~;'": ["/a/{*}", "/a/{**}", "/{**}"],
    "/a/x[y": [],
    "/a/x]y": [],
    "/a/x%5By": ["/a/{*}", "/a/{**}", "/{**}"],
    "/a/x%2Fy": ["/a/{*}", "/a/{**}", "/{**}"],
    "/b": ["/{*}", "/{**}"],
    "//b": ["/{**}/b", "/{**}"],
    "/x/b": ["/{**}/b", "/{**}"],
    "/x/y/b": ["/{**}/b", "/{**}"],
    "/a/1/b/c/d": ["/a/{**}", "/{**}"],
    "/a/1/b//c/d": ["/a/{*}/b/{**}/c/d", "/a/{**}", "/{**}"],
    "/a/1/b/x/c/d": ["/a/{*}/b/{**}/c/d", "/a/{**}", "/{**}"],
    "/a//b/x/c/d": ["/a/{**}", "/{**}"],
    "/x/1/y/": ["/{**}"],
    "/x/1/y//": ["/x/{*}/y/{**}/", "/{**}"],
    "/x/1/y/a/b/": ["/x/{*}/y/{**}/", "/{**}"],
    "": [],
    "a/x": [],
}


@pytest.mark.parametrize("path", OBSERVED)
def test_templates_match_as_envoy_matches_them(path: str) -> None:
    assert matching(path, *TEMPLATES) == set(OBSERVED[path])


def test_literals_are_case_sensitive_and_never_patterns() -> None:
    assert matching("/a$b(c)+.d/z", "/a$b(c)+.d/{*}") == {"/a$b(c)+.d/{*}"}
    assert matching("/a$b(c)+Xd/z", "/a$b(c)+.d/{*}") == set()
    assert matching("/foo/a", "/Foo/{*}") == set()


def test_more_than_five_variables_are_fine() -> None:
    template = "/{*}" * 7
    assert matching("/1/2/3/4/5/6/7", template) == {template}


@pytest.mark.parametrize(
    "template",
    [
        "a/{*}",
        "{*}",
        "//{*}",
        "/a//b/{*}",
        "/{*}//",
        "/{**}/{*}",
        "/{**}/{**}",
        "/a{*}",
        "/{*}b/c",
        "/{*}/{x}",
        "/{*}/*",
        "/{*}/a b",
        "/{*}/é",
        "/{*}/a[b",
        "/{*}/a\n",
    ],
)
def test_templates_that_the_mesh_refuses_or_fails_on_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"template|variable|braces|segment"):
        parse_path_template(template)
