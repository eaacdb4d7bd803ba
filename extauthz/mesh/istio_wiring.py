"""What an Istio mesh has to be told to ask this service: the extension provider, and the policy that sends requests."""

from __future__ import annotations

from typing import Any

from extauthz.errors import UsageError
from extauthz.istio.workload import Workload

DEFAULT_PROVIDER = "extauthz"


def mesh_config(provider: str, service: str, port: int, timeout: float) -> dict[str, Any]:
    """The entry for `meshConfig.extensionProviders`.

    `service` is the host name under which the mesh knows this service. Istio's own timeout is 600 s and its way with a
    provider that does not answer is to refuse; both are written out, as is what a client then gets.
    """
    return {
        "extensionProviders": [
            {
                "name": provider,
                "envoyExtAuthzGrpc": {
                    "service": service,
                    "port": port,
                    "timeout": f"{timeout:g}s",
                    "failOpen": False,
                    "statusOnError": "503",
                },
            }
        ]
    }


def custom_policy(provider: str, workload: Workload | None, root_namespace: str) -> dict[str, Any]:
    """The AuthorizationPolicy that has the mesh ask about every request to a workload (all workloads without one)."""
    spec: dict[str, Any] = {"action": "CUSTOM", "provider": {"name": provider}, "rules": [{}]}
    if workload is not None and workload.labels:
        spec = {"selector": {"matchLabels": dict(workload.labels)}, **spec}
    namespace = workload.namespace if workload is not None else root_namespace
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": f"ask-{provider}", "namespace": namespace},
        "spec": spec,
    }


def service_of(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. Raises UsageError: a mesh calls services, not sockets."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or address.startswith("unix:") or not port.isdigit():
        raise UsageError(f"{address!r}: a mesh calls a service by HOST:PORT (extauthz.default.svc.cluster.local:9191)")
    return host.strip("[]"), int(port)
