"""The memory that pods may take holds what the service may remember."""

import re

from deploy_manifests import DEPLOY

from extauthz.authn.limits import CacheLimits

MIB = 1 << 20
CACHE = CacheLimits()
EMPTY = 64 * MIB
"""More than a process takes that has remembered nothing."""


def _bytes(quantity: str) -> int:
    return int(quantity.removesuffix("Mi")) * MIB


def test_full_caches_of_tokens_fit_into_the_memory_of_every_pod():
    manifests = [*(DEPLOY / "kubernetes").rglob("*.yaml"), DEPLOY / "helm" / "extauthz" / "values.yaml"]
    limits = [
        found
        for file in manifests
        for found in re.findall(r"limits:\s*\{?\s*memory: (\w+)", file.read_text(encoding="utf-8"))
    ]
    assert len(limits) >= 5
    assert all(_bytes(limit) >= EMPTY + CACHE.verified_bytes + CACHE.refused_bytes for limit in limits)
