"""Requests drawn from policies: for each rule such as meet it and such as just miss it, and the claims they need."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extauthz.istio.resources import Resources
from extauthz.mesh.verify.conditions import aim
from extauthz.mesh.verify.draft import Draft
from extauthz.mesh.verify.probe import Probe

PER_RULE = 4
"""Requests for each rule; every second one misses it."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A request, and the claims that its token has to have for it to meet (or miss) its rule; empty: any will do."""

    probe: Probe
    claims: Mapping[str, Any]


def requests_from_policies(resources: Resources, seed: int) -> tuple[Drawn, ...]:
    """Requests for all rules of all AuthorizationPolicies, the same for the same seed; one plain request for none."""
    rng = random.Random(seed)
    drawn = []
    for policy in resources.authorization_policies:
        for rule in policy.rules:
            for number in range(PER_RULE):
                draft = Draft()
                aim(rng, draft, rule, spoil=number % 2 == 1)
                drawn.append(Drawn(draft.probe(), draft.claims))
    return tuple(drawn) or (Drawn(Draft().probe(), {}),)
