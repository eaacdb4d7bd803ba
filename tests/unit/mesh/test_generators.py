"""Random policies and requests: the same for the same seed, loadable, and close to the policies they are drawn from."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import pytest

from extauthz.istio.load import load
from extauthz.istio.resources import AuthorizationPolicy, Condition, Operation, Resources, Rule, Source
from extauthz.mesh.documents import as_yaml
from extauthz.mesh.verify import samples
from extauthz.mesh.verify.conditions import aim
from extauthz.mesh.verify.draft import Draft
from extauthz.mesh.verify.fuzz import Fuzzer
from extauthz.mesh.verify.keyring import KeyPool, with_held_keys
from extauthz.mesh.verify.random_policies import random_policies
from extauthz.mesh.verify.trials import from_random_policies

SEEDS = range(60)


@pytest.fixture(scope="module")
def pool() -> KeyPool:
    return KeyPool(1)


def without_annotations(policy: AuthorizationPolicy) -> AuthorizationPolicy:
    """The policy alone: what its annotations mean is in its other fields."""
    return replace(policy, metadata=replace(policy.metadata, annotations={}))


def drawn(seed: int) -> Resources:
    return load(["-"], stdin=io.StringIO(random_policies(random.Random(seed), "").text)).resources


@pytest.mark.parametrize("seed", SEEDS)
def test_random_policies_load_and_survive_being_written_again(seed: int) -> None:
    resources = drawn(seed)
    again = load(["-"], stdin=io.StringIO(as_yaml(resources))).resources
    assert again.request_authentications == resources.request_authentications
    assert tuple(map(without_annotations, again.authorization_policies)) == tuple(
        map(without_annotations, resources.authorization_policies)
    )


def test_equal_seeds_draw_equal_policies_and_requests() -> None:
    first, second = (list(from_random_policies(3, 30, seed=7)) for _ in range(2))
    assert [trial.policies.title for trial in first] == [trial.policies.title for trial in second]
    for one, other in zip(first, second, strict=True):
        # Keys are made anew each time, and tokens with them; everything else is drawn.
        assert [case.probe.method for case in one.cases] == [case.probe.method for case in other.cases]


def test_the_requests_of_all_sets_add_up() -> None:
    assert sum(len(list(trial.cases)) for trial in from_random_policies(7, 100, seed=1)) == 100


def test_every_request_can_be_sent(pool: KeyPool) -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        resources, held = with_held_keys(drawn(seed), pool, rng)
        for probe in Fuzzer(resources, held, rng).probes(30):
            head, separator, _ = probe.encode().partition(b"\r\n\r\n")
            assert separator
            assert all(b"\n" not in line and b"\r" not in line for line in head.split(b"\r\n"))


def test_a_suite_meets_and_misses_every_rule(pool: KeyPool) -> None:
    resources = load(
        ["-"],
        stdin=io.StringIO(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: b}\n"
            "spec: {rules: [{to: [{operation: {paths: [/x]}}]}, {to: [{operation: {methods: [PUT]}}]}]}"
        ),
    ).resources
    names = {probe.name for probe in Fuzzer(resources, (), random.Random(0)).suite()}
    assert names >= {f"{verb} rule {index} of b/a" for verb in ("meets", "just misses") for index in (0, 1)}


def test_aiming_at_a_rule_fulfils_what_can_be_fulfilled() -> None:
    rule = Rule(
        sources=(Source(ip_blocks=("127.0.0.8/30",), remote_ip_blocks=("192.0.2.0/24",)),),
        operations=(Operation(methods=("PUT",), hosts=("a.example",), paths=("/x/*",), ports=("81",)),),
        when=(
            Condition(key="request.headers[x-h]", values=("v",)),
            Condition(key="request.auth.claims[a][b]", values=("c",)),
            Condition(key="source.principal", values=("td/ns/a/sa/b",)),
        ),
    )
    for seed in range(20):
        draft = Draft()
        aim(random.Random(seed), draft, rule, spoil=False)
        assert draft.method == "PUT"
        assert draft.host is not None
        assert draft.host.lower() == "a.example"
        assert draft.path.startswith("/x/")
        assert draft.port == 81
        assert draft.source.startswith("127.0.0.")
        assert draft.forwarded_for is not None
        assert "192.0.2." in draft.forwarded_for
        assert ("x-h", "v") in draft.lines
        assert draft.uris == ["spiffe://td/ns/a/sa/b"]
        assert "b" in draft.claims["a"]


@pytest.mark.parametrize("value", ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7", "2001:db8::/32", "::/0", "255.255.255.255"])
def test_addresses_near_a_block_are_addresses(value: str) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        assert samples.matching_address(rng, value)
        assert samples.missing_address(rng, value)


def test_our_own_addresses_can_be_bound_to() -> None:
    rng = random.Random(0)
    assert samples.own_address(rng, "10.0.0.0/8", inside=True) is None
    assert samples.own_address(rng, "127.0.0.0/8", inside=False) == "::1"
    assert samples.own_address(rng, "::1", inside=True) == "::1"


def test_our_keys_join_those_of_the_operator(pool: KeyPool) -> None:
    text = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a, namespace: b}\n"
        'spec: {jwtRules: [{issuer: a, jwks: \'{"keys":[{"kty":"oct","k":"YQ","kid":"own"}]}\'}]}'
    )
    resources, (held,) = with_held_keys(load(["-"], stdin=io.StringIO(text)).resources, pool, random.Random(0))
    (rule,) = resources.request_authentications[0].jwt_rules
    assert rule == held.rule
    assert '"own"' in rule.jwks
    assert all(key.kid in rule.jwks for key in held.keys)
