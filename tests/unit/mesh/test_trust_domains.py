"""Trust domains in policies: which values stand for several."""

from __future__ import annotations

import pytest

from extauthz.mesh.trust_domains import expand_principals, expand_trust_domains

MESH = ("td1", "td2", "old.td")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("td2/ns/a/sa/b", ["td1/ns/a/sa/b", "td2/ns/a/sa/b", "old.td/ns/a/sa/b"]),
        ("cluster.local/ns/a/sa/b", ["td1/ns/a/sa/b", "td2/ns/a/sa/b", "old.td/ns/a/sa/b"]),
        ("*td/ns/a/sa/b", ["td1/ns/a/sa/b", "td2/ns/a/sa/b", "*td/ns/a/sa/b"]),
        ("td*/ns/a/sa/b", ["td1/ns/a/sa/b", "td2/ns/a/sa/b", "old.td/ns/a/sa/b"]),
        ("*/ns/a/sa/b", ["*/ns/a/sa/b"]),
        ("other/ns/a/sa/b", ["other/ns/a/sa/b"]),
        ("td1/ns/a", ["td1/ns/a"]),
        ("td1/ns/a/sa/*", ["td1/ns/a/sa/*", "td2/ns/a/sa/*", "old.td/ns/a/sa/*"]),
        ("*", ["*"]),
    ],
)
def test_a_principal_of_the_mesh_stands_for_each_of_its_names(value: str, expected: list[str]) -> None:
    assert expand_principals([value], MESH) == expected


def test_trust_domains_expand_only_when_they_are_exactly_a_name_of_the_mesh() -> None:
    assert expand_trust_domains(["td2", "x", "td*"], MESH) == ["td1", "td2", "old.td", "x", "td*"]
    assert expand_trust_domains(["cluster.local"], MESH) == ["cluster.local"]
