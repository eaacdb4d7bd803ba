"""Sets of policies on both sides, and one comparison for each probe.

Policies are loaded once for both; everything after that is separate: Envoy's filters there, the `Authorizer` here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from envoy_data_plane.envoy.config.listener.v3 import Listener

from extauthz.authorizer import Authorizer, AuthorizerOptions
from extauthz.istio.resources import Resources
from extauthz.istio.workload import select
from extauthz.mesh.filters import MeshOptions, builtin_filters
from extauthz.mesh.jwt_filter import KeySets
from extauthz.mesh.rbac_filter import CUSTOM_STAT_PREFIX
from extauthz.mesh.stand_in import made_up_key_sets
from extauthz.mesh.verify.ext_authz import allowed, request_lines
from extauthz.mesh.verify.harness import Harness, Observation
from extauthz.mesh.verify.limits import settle
from extauthz.mesh.verify.listeners import recording_listener
from extauthz.mesh.verify.metadata import places
from extauthz.mesh.verify.outcome import Difference, Outcome, differences, observed
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.subject import our_outcome
from extauthz.protos.external_auth_pb2 import CheckRequest


@dataclass(frozen=True, slots=True)
class PolicySet:
    """What is enforced on both sides: everything that was loaded, and the options it is enforced with."""

    title: str
    resources: Resources
    options: AuthorizerOptions
    tls: bool = False

    @property
    def selected(self) -> Resources:
        """What applies to the workload."""
        return select(self.resources, self.options.workload, self.options.root_namespace)

    @property
    def mesh_options(self) -> MeshOptions:
        """The options of the mesh's side."""
        options = self.options
        return MeshOptions(options.trust_domain, tuple(options.trust_domain_aliases), options.provider)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One probe and what became of it on both sides.

    `limits` names the known limits (docs/limits.md) for which the outcomes differ in ways that are not counted.
    """

    policies: PolicySet
    probe: Probe
    mesh: Outcome
    ours: Outcome
    differences: tuple[Difference, ...]
    limits: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, ...]:
        """What tells this difference from others: where the two sides differ and the reasons they gave."""
        return (
            self.policies.title,
            self.mesh.details,
            self.ours.details,
            *(f"{difference.what} {difference.mesh == '(none)'}" for difference in self.differences),
        )


class Subject(Protocol):
    """Our side of one set of policies."""

    async def outcome(self, probe: Probe, observation: Observation) -> Outcome:
        """What the probe comes to on our side; `observation` is what it came to on the mesh's."""
        ...


class InProcess:
    """Our side without a second Envoy: the Authorizer is given what Envoy would have asked."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def outcome(self, probe: Probe, observation: Observation) -> Outcome:
        assert observation.check is not None
        return our_outcome(self._authorizer, observation.check)


def mesh_listener(harness: Harness, name: str, policies: PolicySet, key_sets: KeySets | None = None) -> Listener:
    """The listener on which Envoy enforces a set by itself. Raises UsageError for what has no meaning to it."""
    selected = policies.selected
    return recording_listener(
        name,
        builtin_filters(selected, policies.mesh_options, key_sets or made_up_key_sets()),
        metadata=places(selected),
        trusted_hops=policies.options.trusted_hops,
        tls=harness.certificates.server_socket() if policies.tls else None,
    )


async def compare(harness: Harness, listener: str, policies: PolicySet, subject: Subject, probe: Probe) -> Comparison:
    """Put one probe to both sides. Raises EnvoyError when Envoy does not answer."""
    observation = await harness.ask(listener, probe)
    mesh = observed(observation)
    if observation.check is None:
        # Envoy answered it before any filter, or without a route: the same with us, as nobody was asked.
        ours = mesh if mesh.upstream is None else _not_asked(mesh)
    else:
        mesh = _as_our_provider(mesh, policies, observation.check)
        ours = await subject.outcome(probe, observation)
    expressible, settled, limits = settle(mesh, ours)
    return Comparison(policies, probe, mesh, ours, differences(expressible, settled), limits)


def _not_asked(mesh: Outcome) -> Outcome:
    return Outcome(status=mesh.status, upstream=None, details="the request passed without being asked about")


def _as_our_provider(mesh: Outcome, policies: PolicySet, check: bytes) -> Outcome:
    """With CUSTOM policies that name us: what they do not match is not for us to decide and goes on as it is."""
    mark = f"{CUSTOM_STAT_PREFIX}shadow_effective_policy_id"
    shadow = {key: value for key, value in mesh.shadow.items() if not key.startswith(CUSTOM_STAT_PREFIX)}
    if len(shadow) == len(mesh.shadow):
        return mesh
    if mark not in mesh.shadow:
        message = CheckRequest.FromString(check)
        return allowed(message, request_lines(message))
    return replace(mesh, shadow=shadow)
