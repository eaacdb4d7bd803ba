"""Trust domains in policies: which principals and trust domains stand for the mesh's own under another name.

Istio, "trust domain migration": the mesh's trust domain and its aliases mean the same mesh, and `cluster.local` in a
policy means whatever that mesh is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LOCAL = "cluster.local"


def expand_principals(values: Iterable[str], trust_domains: Sequence[str]) -> list[str]:
    """`source.principal` values, each of TRUST_DOMAIN/ns/N/sa/S once for every name of the mesh it belongs to."""
    expanded: list[str] = []
    for value in values:
        parts = value.split("/")
        own = parts[0]
        if len(parts) != 5 or own == "*" or not (own == LOCAL or any(_overlap(own, name) for name in trust_domains)):
            expanded.append(value)
            continue
        for name in trust_domains:
            # `*-td` stays as it is for the names that it matches; for the others it is replaced.
            renamed = value if _covers(own, name) else "/".join((name, *parts[1:]))
            if renamed not in expanded:
                expanded.append(renamed)
    return expanded


def expand_trust_domains(values: Iterable[str], trust_domains: Sequence[str]) -> list[str]:
    """`source.trustDomain` values; one that is a name of the mesh stands for all its names."""
    expanded: list[str] = []
    for value in values:
        expanded.extend(trust_domains if value in trust_domains else (value,))
    return list(dict.fromkeys(expanded))


def _covers(pattern: str, name: str) -> bool:
    return pattern.startswith("*") and name.endswith(pattern[1:])


def _overlap(one: str, other: str) -> bool:
    """Whether either is the other, or the other's pattern with a star at its start or end."""
    return one == other or any(
        pattern == "*"
        or (pattern.startswith("*") and text.endswith(pattern[1:]))
        or (pattern.endswith("*") and text.startswith(pattern[:-1]))
        for text, pattern in ((one, other), (other, one))
    )
