"""Where trials come from: case files, requests drawn from an operator's policies, and policies drawn at random."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from extauthz.authorizer import AuthorizerOptions
from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.istio.resources import Resources
from extauthz.istio.workload import Workload, select
from extauthz.mesh.verify.campaign import Trial
from extauthz.mesh.verify.casefile import Case, CaseSet, read_case_file, read_requests
from extauthz.mesh.verify.engine import PolicySet
from extauthz.mesh.verify.fuzz import Fuzzer
from extauthz.mesh.verify.keyring import KeyPool, with_fetched_keys, with_held_keys
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.random_policies import random_policies


def from_case_files(files: Sequence[Path], resources: Resources | None, options: AuthorizerOptions) -> Iterator[Trial]:
    """The trials of case files: YAML with policies of its own, or JSON lines put to `resources`.

    Raises UsageError for a file that cannot be used, PolicyError for policies in it that cannot.
    """
    for file in files:
        if file.suffix in (".yaml", ".yml"):
            for case_set in read_case_file(file):
                yield trial_of(case_set)
            continue
        if resources is None:
            raise UsageError(f"{file}: requests alone need policies: name them with --policy")
        cases = read_requests(file)
        yield Trial(PolicySet(file.name, resources, options, _needs_tls(cases)), cases)


def trial_of(case_set: CaseSet) -> Trial:
    """The trial of one set of a conformance file. Raises PolicyError."""
    given = case_set.options
    workload = given.get("workload")
    options = AuthorizerOptions(
        workload=Workload.parse(workload) if workload else None,
        root_namespace=given.get("root-namespace", "istio-system"),
        trust_domain=given.get("trust-domain", "cluster.local"),
        trust_domain_aliases=tuple(given.get("trust-domain-alias") or ()),
        trusted_hops=given.get("trusted-hops", 0),
        provider=given.get("provider", ""),
    )
    resources = with_fetched_keys(load(["-"], stdin=io.StringIO(case_set.policies)).resources, case_set.fetched)
    return Trial(PolicySet(case_set.title, resources, options, _needs_tls(case_set.cases)), case_set.cases)


def from_policies(
    resources: Resources, options: AuthorizerOptions, *, seed: int, count: int | None, title: str
) -> Iterator[Trial]:
    """One trial of an operator's policies, with keys of ours in their key sets so that there are good tokens.

    `count` requests are drawn at random; None goes through the policies one by one.
    """
    rng = random.Random(seed)
    selected = select(resources, options.workload, options.root_namespace)
    held_resources, held = with_held_keys(selected, KeyPool(), rng)
    # What applies was selected already: with a workload the selectors would only be looked at again.
    policies = PolicySet(title, held_resources, replace(options, workload=None), _reads_peer(selected))
    fuzzer = Fuzzer(held_resources, held, rng)
    drawn = fuzzer.suite() if count is None else fuzzer.probes(count)
    yield Trial(policies, _cases(drawn, policies.tls))


def from_random_policies(sets: int, count: int, seed: int) -> Iterator[Trial]:
    """Trials of policies drawn at random, `count` requests altogether. Equal seeds give equal policies and requests."""
    pool = KeyPool()
    for index in range(sets):
        rng = random.Random(f"{seed}/{index}")
        drawn = random_policies(rng, f"random policies {seed}/{index}")
        loaded = load(["-"], stdin=io.StringIO(drawn.text)).resources
        resources, held = with_held_keys(loaded, pool, rng)
        options = AuthorizerOptions(
            trust_domain=drawn.trust_domain,
            trust_domain_aliases=drawn.trust_domain_aliases,
            trusted_hops=drawn.trusted_hops,
            provider=drawn.provider,
        )
        policies = PolicySet(drawn.title, resources, options, _reads_peer(loaded))
        share = count * (index + 1) // sets - count * index // sets
        yield Trial(policies, _cases(Fuzzer(resources, held, rng).probes(share), policies.tls))


def _cases(drawn: Iterable[Probe], tls: bool) -> Iterator[Case]:
    for probe in drawn:
        yield Case(probe if tls else replace(probe, peer=None, server_name=""))


def _needs_tls(cases: Iterable[Case]) -> bool:
    return any(case.probe.tls for case in cases)


_PEER_FIELDS = ("principals", "namespaces", "service_accounts", "trust_domains")
_PEER_KEYS = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain", "connection.sni")


def _reads_peer(resources: Resources) -> bool:
    """Whether policies look at certificates or server names, so that TLS connections are worth their cost."""
    return any(
        condition.key in _PEER_KEYS
        for policy in resources.authorization_policies
        for rule in policy.rules
        for condition in rule.when
    ) or any(
        getattr(source, field) or getattr(source, f"not_{field}")
        for policy in resources.authorization_policies
        for rule in policy.rules
        for source in rule.sources
        for field in _PEER_FIELDS
    )
