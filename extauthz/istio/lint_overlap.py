"""Rules that another rule makes useless, and fields that exclude all that they admit.

A rule is called useless only when that can be shown: what `_covers` cannot compare counts as different.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from extauthz.istio.crd_security import camel
from extauthz.istio.resources import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from extauthz.istio.validate_authentication import Finding
from extauthz.istio.validate_authorization import lists_of

MAX_COMPARED = 500
"""In a policy with more values than this, rules are compared with a rule for every request only: the time that pairs
take grows with the square of the values."""

MAX_VALUES = 200
"""Longer lists are compared as they are, without looking at patterns and blocks."""

_PATTERNS = frozenset(("hosts", "methods", "paths"))
_BLOCKS = frozenset(("ip_blocks", "remote_ip_blocks"))
_NOT = "not_"

P = TypeVar("P", Source, Operation)


def overlaps(policy: AuthorizationPolicy) -> Iterator[Finding]:
    """What the rules of one policy make of each other."""
    yield from _exclusions(policy)
    first: dict[Rule, int] = {}
    for index, rule in enumerate(policy.rules):
        if (known := first.setdefault(rule, index)) != index:
            yield ("spec", "rules", index), "duplicate-rule", f"the same as rules[{known}]: remove one of them"
    few = sum(_weight(rule) for rule in first) <= MAX_COMPARED
    compared = first if few else {rule: first[rule] for rule in (Rule(),) if rule in first}
    for rule, index in first.items():
        wider = next((place for other, place in compared.items() if _makes_useless(other, place, rule, index)), None)
        if wider is not None:
            reason = f"rules[{wider}] matches every request that this one does: narrow that one, or remove this"
            yield ("spec", "rules", index), "shadowing", reason


def _weight(rule: Rule) -> int:
    """How many values a rule has, and one for itself."""
    conditions = sum(len(condition.values) + len(condition.not_values) for condition in rule.when)
    return 1 + conditions + sum(len(values) for _, _, values in lists_of(rule))


def shadowed_policies(
    policies: Sequence[AuthorizationPolicy], root_namespace: str
) -> Iterator[tuple[AuthorizationPolicy, Finding]]:
    """ALLOW policies beside one that allows every request of the whole namespace, or of the mesh."""
    open_doors: dict[str, AuthorizationPolicy] = {}
    for policy in policies:
        if _enforced_allow(policy) and not policy.selector and Rule() in policy.rules:
            open_doors.setdefault(policy.metadata.namespace, policy)
    for policy in policies:
        wider = open_doors.get(policy.metadata.namespace) or open_doors.get(root_namespace)
        if wider is not None and _enforced_allow(policy) and policy.rules and Rule() not in policy.rules:
            name = f"{wider.metadata.namespace}/{wider.metadata.name}"
            reason = f"{name} allows every request, so this ALLOW policy has no effect: remove or narrow {name}"
            yield policy, (("spec", "rules"), "shadowing", reason)


def _enforced_allow(policy: AuthorizationPolicy) -> bool:
    return policy.action is Action.ALLOW and not policy.dry_run and not policy.target_refs


def _exclusions(policy: AuthorizationPolicy) -> Iterator[Finding]:
    """A field whose `not` form excludes each of its values."""
    for index, rule in enumerate(policy.rules):
        parts: tuple[tuple[str, str, Sequence[Source | Operation]], ...] = (
            ("from", "source", rule.sources),
            ("to", "operation", rule.operations),
        )
        for name, wrapper, entries in parts:
            for place, part in enumerate(entries):
                for member in _positive(part):
                    values, excluded = getattr(part, member), getattr(part, _NOT + member)
                    if values and excluded and _values_cover(member, excluded, values):
                        other = camel(_NOT + member)
                        reason = f"{other} excludes every value of it, so this never matches: correct one of the two"
                        path = ("spec", "rules", index, name, place, wrapper, camel(member))
                        yield path, "never-matches", reason
        for place, condition in enumerate(rule.when):
            if condition.values and set(condition.values) <= set(condition.not_values):
                reason = "notValues excludes every one of the values, so this never matches: correct one of the two"
                yield ("spec", "rules", index, "when", place, "values"), "never-matches", reason


def _positive(part: Source | Operation) -> Iterator[str]:
    return (member.name for member in fields(part) if not member.name.startswith(_NOT))


# --- whether one thing matches whatever another one matches ---


def _makes_useless(other: Rule, place: int, rule: Rule, index: int) -> bool:
    """Whether `rule` could be removed for the sake of `other`; of two that match the same, the later one."""
    return place != index and _rule_covers(other, rule) and (place < index or not _rule_covers(rule, other))


def _rule_covers(wide: Rule, narrow: Rule) -> bool:
    return (
        _parts_cover(wide.sources, narrow.sources)
        and _parts_cover(wide.operations, narrow.operations)
        and all(any(_condition_covers(one, other) for other in narrow.when) for one in wide.when)
    )


def _parts_cover(wide: Sequence[P], narrow: Sequence[P]) -> bool:
    """Each source (operation) of `narrow` lies in one of `wide`; none at all is every request."""
    if not wide:
        return True
    return bool(narrow) and all(any(_part_covers(one, other) for one in wide) for other in narrow)


def _part_covers(wide: P, narrow: P) -> bool:
    for member in _positive(wide):
        admitted, demanded = getattr(wide, member), getattr(narrow, member)
        if admitted and not (demanded and _values_cover(member, admitted, demanded)):
            return False
        # Whoever excludes more matches less.
        if not _values_cover(member, getattr(narrow, _NOT + member), getattr(wide, _NOT + member)):
            return False
    return True


def _condition_covers(wide: Condition, narrow: Condition) -> bool:
    if wide.key != narrow.key or not set(wide.not_values) <= set(narrow.not_values):
        return False
    return not wide.values or (bool(narrow.values) and set(narrow.values) <= set(wide.values))


def _values_cover(member: str, wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether each value of `narrow` matches nothing but what some value of `wide` matches."""
    rest = set(narrow).difference(wide)
    if not rest:
        return True
    if len(rest) > MAX_VALUES or len(wide) > MAX_VALUES:
        return False
    if member in _PATTERNS:
        if member == "hosts":
            wide, rest = [value.lower() for value in wide], {value.lower() for value in rest}
        return all(any(_pattern_covers(one, other) for one in wide) for other in rest)
    if member in _BLOCKS:
        blocks = [ip_network(value, strict=False) for value in wide]
        return all(any(_block_covers(one, ip_network(other, strict=False)) for one in blocks) for other in rest)
    return False


def _pattern_covers(wide: str, narrow: str) -> bool:
    """Exact values, prefixes and suffixes. A path template lies in a prefix or suffix that its own text has, as its
    literals stand for themselves; what lies in a template is not looked at."""
    if wide in (narrow, "*"):
        return True
    # A pattern begins with its star or, failing that, ends with it; other stars stand for themselves.
    if wide.startswith("*"):
        is_prefix = narrow.endswith("*") and not narrow.startswith("*")
        return not is_prefix and narrow.removeprefix("*").endswith(wide[1:])
    return wide.endswith("*") and narrow.removesuffix("*").startswith(wide[:-1])


def _block_covers(wide: IPv4Network | IPv6Network, narrow: IPv4Network | IPv6Network) -> bool:
    if isinstance(wide, IPv4Network):
        return isinstance(narrow, IPv4Network) and narrow.subnet_of(wide)
    return isinstance(narrow, IPv6Network) and narrow.subnet_of(wide)
