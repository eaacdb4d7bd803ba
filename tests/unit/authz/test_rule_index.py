"""That many rules do not cost more: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extauthz.authz import rule_index
from extauthz.authz.policies import AuthorizationOptions, CompiledPolicies, compile_policies
from extauthz.identity import Identity
from extauthz.istio.resources import AuthorizationPolicy, Condition, Metadata, Operation, Rule, Source
from extauthz.request import Request

COUNT = 300

RULES: dict[str, Callable[[int], Rule]] = {
    "exact paths": lambda n: Rule(operations=(Operation(paths=(f"/s/r{n}/x",)),)),
    "prefixes": lambda n: Rule(operations=(Operation(paths=(f"/s/r{n}/*",)),)),
    "suffixes": lambda n: Rule(operations=(Operation(paths=(f"*r{n}/x",)),)),
    "templates": lambda n: Rule(operations=(Operation(paths=(f"/s/r{n}/{{*}}",)),)),
    "templates with tails": lambda n: Rule(operations=(Operation(paths=(f"/{{**}}/r{n}/x",)),)),
    "hosts": lambda n: Rule(operations=(Operation(hosts=(f"H{n}.example",)),)),
    "source addresses": lambda n: Rule(sources=(Source(ip_blocks=(f"10.0.{n // 256}.{n % 256}",)),)),
    "remote addresses": lambda n: Rule(sources=(Source(remote_ip_blocks=(f"10.0.{n // 256}.{n % 256}/32",)),)),
    "request principals": lambda n: Rule(sources=(Source(request_principals=(f"i/s{n}",)),)),
    "issuers": lambda n: Rule(sources=(Source(request_principals=(f"i{n}/*",)),)),
    "subjects": lambda n: Rule(sources=(Source(request_principals=(f"*/s{n}",)),)),
    "principals": lambda n: Rule(sources=(Source(principals=(f"cluster.local/ns/n{n}/sa/s",)),)),
    "namespaces": lambda n: Rule(sources=(Source(namespaces=(f"n{n}",)),)),
    "service accounts": lambda n: Rule(sources=(Source(service_accounts=(f"n{n}/s",)),)),
    "trust domains": lambda n: Rule(sources=(Source(trust_domains=(f"t{n}",)),)),
    "headers": lambda n: Rule(when=(Condition(key="request.headers[x-h]", values=(f"v{n}",)),)),
    "claims": lambda n: Rule(when=(Condition(key="request.auth.claims[groups]", values=(f"g{n}",)),)),
    "server names": lambda n: Rule(when=(Condition(key="connection.sni", values=(f"s{n}.example",)),)),
    "metadata": lambda n: Rule(when=(Condition(key="experimental.envoy.filters.f[k]", values=(f"[m{n}]",)),)),
    "the narrower of two": lambda n: Rule(
        sources=(Source(request_principals=(f"i/s{n}",)),), operations=(Operation(paths=("/*",), methods=("GET",)),)
    ),
    "one of several operations": lambda n: Rule(
        operations=(Operation(paths=(f"/s/r{n}/x",)), Operation(hosts=(f"h{n}.example",), methods=("POST",)))
    ),
}


def request(number: int) -> Request:
    address = f"10.0.{number // 256}.{number % 256}"
    return Request(
        path=f"/s/r{number}/x",
        host=f"h{number}.example",
        source_address=address,
        headers={"x-forwarded-for": (address,), "x-h": ("other", f"v{number}")},
        peer_principals=(f"spiffe://cluster.local/ns/n{number}/sa/s", f"spiffe://t{number}/x"),
        server_name=f"s{number}.example",
        metadata={"envoy.filters.f": {"k": ["other", f"m{number}"]}},
    )


def identity(number: int, issuer: str = "i") -> Identity:
    return Identity({"iss": issuer, "sub": f"s{number}", "groups": ["other", f"g{number}"]})


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets a 1 for each rule that is tried."""
    found: list[int] = []
    conjunction = rule_index._conjunction

    def counting(*arguments: object) -> object:
        holds = conjunction(*arguments)  # type: ignore[arg-type]

        def counted(request: Request, identity: Identity) -> bool:
            found.append(1)
            return holds(request, identity)

        return counted

    monkeypatch.setattr(rule_index, "_conjunction", counting)
    return found


def compiled(make: Callable[[int], Rule], count: int = COUNT) -> CompiledPolicies:
    policies = [
        AuthorizationPolicy(metadata=Metadata(name=f"p{number:05}"), rules=(make(number),)) for number in range(count)
    ]
    return compile_policies(policies, AuthorizationOptions())


@pytest.mark.parametrize("kind", RULES)
def test_only_the_rules_that_can_match_are_tried(kind: str, tried: list[int]) -> None:
    policies = compiled(RULES[kind])
    for number in (0, 7, COUNT - 1):
        who = identity(number, f"i{number}" if kind == "issuers" else "i")
        assert policies.decide(request(number), who).policy == f"ns[]-policy[p{number:05}]-rule[0]"
    assert not policies.decide(request(COUNT), identity(COUNT)).allowed
    assert len(tried) < 20


def test_a_rule_without_a_narrowing_condition_is_always_tried_in_its_place(tried: list[int]) -> None:
    rules = [RULES["exact paths"](number) for number in range(COUNT)]
    rules[100] = Rule(operations=(Operation(not_paths=("/s/r7/x",)),))
    policies = compiled(lambda number: rules[number])
    assert policies.decide(request(7), identity(7)).policy == "ns[]-policy[p00007]-rule[0]"
    assert policies.decide(request(200), identity(200)).policy == "ns[]-policy[p00100]-rule[0]"
    assert len(tried) < 10


def test_the_alternatives_of_one_rule_are_looked_up_too(tried: list[int]) -> None:
    operations = tuple(Operation(paths=(f"/s/r{number}/x",), methods=("GET",)) for number in range(COUNT))
    sources = tuple(Source(request_principals=(f"i/s{number}",)) for number in range(COUNT))
    policy = AuthorizationPolicy(rules=(Rule(sources=sources, operations=operations),))
    policies = compile_policies([policy], AuthorizationOptions())
    assert policies.decide(request(7), identity(200)).allowed
    assert not policies.decide(request(7), identity(COUNT)).allowed
    assert not policies.decide(request(COUNT), identity(7)).allowed
    assert len(tried) < 20


def test_a_value_that_all_rules_share_is_not_what_they_are_looked_up_by(tried: list[int]) -> None:
    def rule(number: int) -> Rule:
        operation = Operation(paths=("/same",), methods=("GET",), hosts=("*",))
        return Rule(operations=(operation,), when=(Condition(key="request.headers[x-h]", values=(f"v{number}",)),))

    policies = compiled(rule)
    asked = Request(path="/same", headers={"x-h": ("v250",)})
    assert policies.decide(asked, Identity({})).policy == "ns[]-policy[p00250]-rule[0]"
    assert len(tried) < 5
