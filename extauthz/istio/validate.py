"""istiod's validation of resources, and what passes istiod but breaks Envoy."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.errors import Problem
from extauthz.istio.resources import Resources


def validate(resources: Resources) -> Iterator[Problem]:
    """Every problem of the resources."""
    yield from ()
