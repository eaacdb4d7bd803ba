"""Our side as it runs in earnest: `extauthz serve` for each set of policies, asked by the real `ext_authz` filter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener

from extauthz.mesh.documents import as_yaml
from extauthz.mesh.filters import ExtAuthzSettings, ext_authz_filters
from extauthz.mesh.pieces import cluster
from extauthz.mesh.rbac_filter import CUSTOM_STAT_PREFIX
from extauthz.mesh.service import run_service
from extauthz.mesh.verify.engine import PolicySet
from extauthz.mesh.verify.harness import Harness, Observation
from extauthz.mesh.verify.key_server import key_server
from extauthz.mesh.verify.listeners import served_listener
from extauthz.mesh.verify.metadata import places
from extauthz.mesh.verify.outcome import Outcome, observed
from extauthz.mesh.verify.probe import Probe

AT_A_TIME = 8
"""Servers that run at a time."""

_TIMEOUT_SECONDS = 10.0


class ThroughEnvoy:
    """Our side of a set of policies, on a listener of its own of the same Envoy."""

    def __init__(self, harness: Harness, listener: str) -> None:
        self._harness = harness
        self._listener = listener

    async def outcome(self, probe: Probe, observation: Observation) -> Outcome:
        """What the client and the upstream see. Reasons and records stay inside our server: they are not compared."""
        ours, mesh = observed(await self._harness.ask(self._listener, probe)), observed(observation)
        shadow = {key: value for key, value in mesh.shadow.items() if not key.startswith(CUSTOM_STAT_PREFIX)}
        return replace(ours, details="", shadow=shadow, audit=mesh.audit)


class Servers:
    """Where servers listen, one for each set of policies of a batch: Unix sockets in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def clusters(self) -> Sequence[Cluster]:
        """The clusters that Envoy needs to reach them, for its bootstrap."""
        made = []
        for place in range(AT_A_TIME):
            one = cluster(_cluster_name(place), [f"unix:{self._socket(place)}"], grpc=True)
            # A server that was replaced a moment ago must not count as unhealthy.
            one.health_checks = []
            made.append(one)
        return made

    @contextmanager
    def run(self, sets: Sequence[PolicySet]) -> Iterator[None]:
        """Serve these sets, at most AT_A_TIME, each in its place. Raises ServiceError when one does not get ready."""
        with contextlib.ExitStack() as stack:
            keys = stack.enter_context(key_server())
            for place, policies in enumerate(sets):
                file = self._directory / f"policies-{place}.yaml"
                file.write_text(as_yaml(keys.published(policies.selected)))
                stack.enter_context(run_service(["serve", *self._arguments(policies, file, place)]))
            yield

    def listener(self, name: str, policies: PolicySet, place: int, harness: Harness) -> Listener:
        """The listener on which the server in a place is asked about every request."""
        settings = ExtAuthzSettings(_cluster_name(place), timeout=_TIMEOUT_SECONDS)
        return served_listener(
            name,
            ext_authz_filters(policies.selected, policies.mesh_options, settings),
            metadata=places(policies.selected),
            trusted_hops=policies.options.trusted_hops,
            tls=harness.certificates.server_socket() if policies.tls else None,
        )

    def _socket(self, place: int) -> Path:
        return self._directory / f"{place}.sock"

    def _arguments(self, policies: PolicySet, file: Path, place: int) -> list[str]:
        options = policies.options
        arguments = ["--policy", str(file), "--listen", f"unix:{self._socket(place)}", "--admin", "off", "--drain", "0"]
        arguments += ["--trust-domain", options.trust_domain, "--trusted-hops", str(options.trusted_hops)]
        for alias in options.trust_domain_aliases:
            arguments += ["--trust-domain-alias", alias]
        if options.provider:
            arguments += ["--provider", options.provider]
        return arguments


def _cluster_name(place: int) -> str:
    return f"extauthz-{place}"
