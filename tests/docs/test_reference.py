"""The reference pages name every field and key that policies may have, and pages name only metrics that exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from doc_pages import DOCS, ROOT, paths, read

from extauthz.envoy_http import JOINED_HEADERS
from extauthz.istio.checks import PLAIN_KEYS
from extauthz.istio.crd_security import OPERATION_LISTS, SOURCE_LISTS, camel
from extauthz.istio.resources import Action, JwtRule
from extauthz.server.exposition import PREFIX
from extauthz.server.metrics import FAMILIES, Kind

METRIC = re.compile(rf"\b{PREFIX}[a-z_]+(?![a-z_.]|/)")
SUFFIXES = {Kind.COUNTER: ("_total",), Kind.HISTOGRAM: ("", "_bucket", "_count", "_sum"), Kind.GAUGE: ("",)}


def _codes(page: str) -> set[str]:
    """The single words in code spans of a page, those of lists included."""
    return {word for code in read(DOCS / page).codes for word in re.split(r"[\s,]+", code)}


def test_every_field_of_a_policy_and_every_key_is_explained():
    named = set(re.findall(r"[\w.]+", (DOCS / "authorization-policy.md").read_text(encoding="utf-8")))
    wanted = {name for name in (*SOURCE_LISTS, *OPERATION_LISTS) if not name.startswith("not")}
    assert not wanted - named
    assert not set(PLAIN_KEYS) - named


def test_every_action_is_explained():
    page = (DOCS / "authorization-policy.md").read_text(encoding="utf-8")
    assert all(f"| {action.value} |" in page for action in Action)


def test_every_field_of_a_token_rule_is_explained():
    wanted = {camel(field.name) for field in fields(JwtRule)}
    assert not wanted - _codes("request-authentication.md")


def test_the_headers_that_envoy_joins_are_named():
    assert not JOINED_HEADERS - _codes("authorization-policy.md")


@pytest.mark.parametrize("path", paths(), ids=lambda path: str(path.relative_to(ROOT)))
def test_metrics_that_are_named_exist(path: Path):
    known = {f"{PREFIX}{family.name}{suffix}" for family in FAMILIES for suffix in SUFFIXES[family.kind]}
    for code in read(path).codes:
        for name in METRIC.findall(code):
            group = name.endswith("_") and any(one.startswith(name) for one in known)
            assert group or name in known, f"{path}: there is no metric {name}"
