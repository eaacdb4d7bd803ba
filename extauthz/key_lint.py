"""Warnings about inline key sets: keys that nobody can use, certificates that have ended, secrets given away.

Floor 4, beside `authorizer`: it looks at parsed keys, which `istio` does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from extauthz.authn.keys import KeySet, KeySetError
from extauthz.errors import Problem, Severity
from extauthz.istio.resources import FieldPath, Resources


def lint_keys(resources: Resources, now: float) -> Iterator[Problem]:
    """Warnings about the inline keys of RequestAuthentications at the time `now` (Unix seconds). Sets that cannot be
    used at all are errors when policies are compiled."""
    for policy in resources.request_authentications:
        for index, rule in enumerate(policy.jwt_rules):
            if not rule.jwks:
                continue
            try:
                key_set = KeySet.parse(rule.jwks)
            except KeySetError:
                continue
            path: FieldPath = ("spec", "jwtRules", index, "jwks")
            for code, reason in _oddities(key_set, now):
                yield policy.problem(path, reason, code=code, severity=Severity.WARNING)


def _oddities(key_set: KeySet, now: float) -> Iterator[tuple[str, str]]:
    for skipped in key_set.skipped:
        name = f"key {skipped.kid!r}" if skipped.kid else f"keys[{skipped.index}]"
        yield "skipped-key", f"{name} is passed over: {skipped.reason} (istiod refuses the whole set)"
    for key in key_set.keys:
        name = f"key {key.kid!r}" if key.kid else "a key without kid"
        if key.has_private_members:
            yield "private-key", f"{name} has private members: whoever reads this policy can sign tokens with it"
        if key.not_after is not None and key.not_after < now:
            ended = datetime.fromtimestamp(key.not_after, UTC).date().isoformat()
            yield "expired-certificate", f"the certificate of {name} ended on {ended} (Envoy takes it all the same)"
