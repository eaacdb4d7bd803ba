"""Requests drawn from policies: for each rule such as meet it and such as just miss it. Tokens are not drawn here."""

from __future__ import annotations

import random

from extauthz.istio.resources import Resources
from extauthz.mesh.verify.conditions import aim
from extauthz.mesh.verify.draft import Draft
from extauthz.mesh.verify.probe import Probe

PER_RULE = 4
"""Requests for each rule; every second one misses it."""


def requests_from_policies(resources: Resources, seed: int) -> tuple[Probe, ...]:
    """Requests for all rules of all AuthorizationPolicies, the same for the same seed; one plain request for none."""
    rng = random.Random(seed)
    probes = []
    for policy in resources.authorization_policies:
        for rule in policy.rules:
            for number in range(PER_RULE):
                draft = Draft()
                aim(rng, draft, rule, spoil=number % 2 == 1)
                probes.append(draft.probe())
    return tuple(probes) or (Draft().probe(),)
