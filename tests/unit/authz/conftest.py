"""Policies, requests and identities in few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from extauthz.authz.policies import AuthorizationOptions, CompiledPolicies, compile_policies
from extauthz.identity import Identity
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    Condition,
    Metadata,
    Operation,
    Rule,
    Source,
)
from extauthz.request import Request

MakePolicy = Callable[..., AuthorizationPolicy]
Compile = Callable[..., CompiledPolicies]


@pytest.fixture
def policy() -> MakePolicy:
    def make(
        *rules: Rule, action: Action = Action.ALLOW, name: str = "p", namespace: str = "ns", **more: Any
    ) -> AuthorizationPolicy:
        metadata = Metadata(name=name, namespace=namespace)
        return AuthorizationPolicy(metadata=metadata, action=action, rules=rules, **more)

    return make


@pytest.fixture
def compiled() -> Compile:
    """Policies compiled with options by name."""

    def make(*policies: AuthorizationPolicy, **options: Any) -> CompiledPolicies:
        return compile_policies(policies, AuthorizationOptions(**options))

    return make


@pytest.fixture
def allows(policy: MakePolicy, compiled: Compile) -> Callable[..., bool]:
    """Whether one ALLOW rule with one condition lets a request pass.

    The condition is a field of a source or operation by name (`paths=["/a"]`), or a `when` entry (`key=..., values=...`
    or `not_values=...`). `claims` and `options` are for the identity and the compiler, the rest is the request's.
    """

    def ask(
        request: Request | None = None,
        *,
        claims: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        namespace: str = "ns",
        **condition: Any,
    ) -> bool:
        condition = {name: value if name == "key" else tuple(value) for name, value in condition.items()}
        name = next(iter(condition))
        if name == "key":
            rule = Rule(when=(Condition(**condition),))
        elif name in Source.__dataclass_fields__:
            rule = Rule(sources=(Source(**condition),))
        else:
            rule = Rule(operations=(Operation(**condition),))
        policies = compiled(policy(rule, namespace=namespace), **(options or {}))
        return policies.decide(request or Request(), Identity(claims or {})).allowed

    return ask
