"""Why a request is answered as it is, from CUSTOM over authentication to the policies, for people and programs.

Floor 4, beside `authorizer`: it asks the same compiled objects that decide, so that the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.authn.explain import AuthenticationExplanation
from extauthz.authn.explain import explain as explain_authentication
from extauthz.authorizer import Authorizer
from extauthz.authz.explain import Explanation as PolicyExplanation
from extauthz.authz.explain import explain as explain_policies
from extauthz.authz.explain import explain_custom
from extauthz.decision import Decision
from extauthz.request import ChangedRequest, Request


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and its reasons. `custom` is None when the CUSTOM policies had nothing to say; `authentication` when
    they decided; `policies` when authentication refused the request."""

    decision: Decision
    custom: PolicyExplanation | None
    authentication: AuthenticationExplanation | None
    policies: PolicyExplanation | None


def explain(authorizer: Authorizer, request: Request, now: float) -> Explanation:
    """Why `authorizer.decide` answers this request as it does at the time `now` (Unix seconds)."""
    decision = authorizer.decide(request, now)
    custom = explain_custom(authorizer.policies, request)
    if custom is not None:
        return Explanation(decision, custom, None, None)
    who = explain_authentication(authorizer.authenticator, request, now)
    if who.authentication.refusal is not None:
        return Explanation(decision, None, who, None)
    changes = who.authentication.changes
    seen = ChangedRequest(request, changes) if changes else request
    return Explanation(decision, None, who, explain_policies(authorizer.policies, seen, who.authentication.identity))
