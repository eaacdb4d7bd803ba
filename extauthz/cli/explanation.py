"""An explanation as lines for people and as a document for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extauthz.authn.explain import AuthenticationExplanation, TokenReport
from extauthz.authz.explain import ConditionReport, RuleReport
from extauthz.authz.explain import Explanation as PolicyExplanation
from extauthz.explain import Explanation

TOKEN_SHOWN = 12
"""Characters of a token that are shown when it is not asked for whole: enough to tell two apart, useless to a thief."""


def as_lines(explanation: Explanation, *, show_token: bool = False) -> Iterator[str]:
    """The explanation, the answer first."""
    decision = explanation.decision
    if decision.allowed:
        yield f"ALLOWED  ({decision.reason})"
    else:
        yield f"DENIED   {decision.status} {decision.body}  ({decision.reason})"
    for name, value in decision.response_headers:
        yield f"         {name}: {value}"
    for name, lines in decision.changes.headers.items():
        yield f"upstream {name}: {', '.join(lines)}" if lines else f"upstream without {name}"
    if decision.changes.path is not None:
        yield f"upstream path {decision.changes.path}"
    if explanation.custom is not None:
        yield from _policy_lines("CUSTOM policies", explanation.custom)
    if explanation.authentication is not None:
        yield from _authentication_lines(explanation.authentication, show_token)
    if explanation.policies is not None:
        yield from _policy_lines("policies", explanation.policies)


def _authentication_lines(found: AuthenticationExplanation, show_token: bool) -> Iterator[str]:
    yield "authentication"
    if not found.rules:
        yield "  no rule looked for a token"
    for rule in found.rules:
        tokens = "1 token" if rule.found == 1 else f"{rule.found or 'no'} tokens"
        yield f"  {rule.rule} (issuer {rule.issuer or 'any'}): {tokens} in {', '.join(rule.places)}"
    for token in found.tokens:
        yield f"  token in {token.place} under {token.rule}: {_token(token, show_token)}"
        for check in token.checks:
            detail = f": {check.detail}" if check.detail else ""
            yield f"    {'ok  ' if check.passed else 'FAIL'} {check.name}{detail}"
    identity = found.authentication.identity
    if identity.claims:
        yield f"  request principal {identity.issuer or ''}/{identity.subject or ''}"
    elif found.authentication.refusal is None:
        yield "  no verified token: there is no request principal"


def _token(token: TokenReport, show_token: bool) -> str:
    if show_token or len(token.text) <= TOKEN_SHOWN:
        return token.text or "(empty)"
    return f"{token.text[:TOKEN_SHOWN]}... ({len(token.text)} characters)"


def _policy_lines(title: str, found: PolicyExplanation) -> Iterator[str]:
    yield title
    for rule in found.recorded:
        yield f"  recorded by {_rule(rule)}, which decides nothing"
    if found.decided is not None:
        yield f"  decided by {_rule(found.decided)}"
        yield from map(_condition, found.decided.conditions)
    elif found.nearest is not None:
        yield f"  no rule matched; the nearest is {_rule(found.nearest)}; these conditions did not hold:"
        yield from map(_condition, found.nearest.failed)
    else:
        yield "  no rule had a say"


def _rule(rule: RuleReport) -> str:
    dry = " (dry run)" if rule.dry_run else ""
    return f"{rule.action} {rule.name}{dry} at {rule.file}:{rule.line}"


def _condition(condition: ConditionReport) -> str:
    wanted = f"{'none' if condition.negated else 'one'} of {list(condition.wanted)}"
    seen = ", ".join(condition.seen) if condition.seen else "nothing"
    key = f" {condition.key}" if condition.key else ""
    return f"    {'ok  ' if condition.holds else 'FAIL'} {condition.field}{key}: wanted {wanted}, seen {seen}"


def as_document(explanation: Explanation, *, show_token: bool = False) -> dict[str, Any]:
    """The explanation as JSON-like data."""
    decision = explanation.decision
    return {
        "allowed": decision.allowed,
        "status": decision.status,
        "body": decision.body,
        "reason": decision.reason,
        "response_headers": [list(header) for header in decision.response_headers],
        "upstream": {
            "headers": {name: list(lines) for name, lines in decision.changes.headers.items()},
            "path": decision.changes.path,
        },
        "custom": _policy_document(explanation.custom),
        "authentication": _authentication_document(explanation.authentication, show_token),
        "policies": _policy_document(explanation.policies),
    }


def _authentication_document(found: AuthenticationExplanation | None, show_token: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    identity = found.authentication.identity
    return {
        "rules": [
            {"rule": rule.rule, "issuer": rule.issuer, "places": list(rule.places), "found": rule.found}
            for rule in found.rules
        ],
        "tokens": [
            {
                "rule": token.rule,
                "place": token.place,
                "token": _token(token, show_token),
                "checks": [
                    {"name": check.name, "passed": check.passed, "detail": check.detail} for check in token.checks
                ],
            }
            for token in found.tokens
        ],
        "issuer": identity.issuer,
        "subject": identity.subject,
    }


def _policy_document(found: PolicyExplanation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "policy": found.verdict.policy,
        "decided": _rule_document(found.decided),
        "nearest": _rule_document(found.nearest),
        "recorded": [_rule_document(rule) for rule in found.recorded],
    }


def _rule_document(rule: RuleReport | None) -> dict[str, Any] | None:
    if rule is None:
        return None
    return {
        "name": rule.name,
        "action": rule.action.value,
        "dry_run": rule.dry_run,
        "file": rule.file,
        "line": rule.line,
        "conditions": [
            {
                "field": condition.field,
                "key": condition.key,
                "wanted": list(condition.wanted),
                "negated": condition.negated,
                "seen": list(condition.seen),
                "holds": condition.holds,
            }
            for condition in rule.conditions
        ],
    }
