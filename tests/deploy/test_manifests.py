"""The Kubernetes manifests: valid, restricted, consistent, and every option in them one that the program takes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import kubernetes_validate
import pytest
from deploy_manifests import (
    BASES,
    DEPLOY,
    ROOT,
    Manifest,
    build,
    by_name,
    containers,
    documents,
    injected_pod,
    injection_templates,
    kustomize,
    name_of,
    pod_specs,
)
from deploy_serve import EXTAUTHZ, as_user, environment_of, moved, serve_variables, serving

KUBERNETES = "1.32"
CUSTOM = {
    "networking.istio.io/v1": {"ServiceEntry", "DestinationRule"},
    "networking.istio.io/v1alpha3": {"EnvoyFilter"},
    "security.istio.io/v1": {"AuthorizationPolicy"},
    "gateway.envoyproxy.io/v1alpha1": {"SecurityPolicy"},
    "gateway.networking.k8s.io/v1beta1": {"ReferenceGrant"},
    "monitoring.coreos.com/v1": {"ServiceMonitor", "PodMonitor", "PrometheusRule"},
}
BUILT = {base.name: build(base) for base in BASES}
SIDECAR_VALUES = documents(DEPLOY / "kubernetes" / "sidecar" / "istiod-values.yaml")[0]
INJECTED = {name: injected_pod(template) for name, template in injection_templates(SIDECAR_VALUES).items()}


def everything() -> list[tuple[str, Manifest]]:
    """All manifests with where they come from."""
    found = [(f"{base}/{name_of(manifest)}", manifest) for base, manifests in BUILT.items() for manifest in manifests]
    return found + [(f"injected/{name}", pod) for name, pod in INJECTED.items()]


EVERYTHING = [pytest.param(manifest, id=where) for where, manifest in everything()]
SERVERS = [
    pytest.param(spec, container, id=where)
    for where, manifest in everything()
    for spec in pod_specs(manifest)
    for container in [*spec.get("initContainers", ()), *spec.get("containers", ())]
    if container["name"] == "extauthz"
]


@pytest.mark.parametrize("manifest", EVERYTHING)
def test_a_manifest_is_valid(manifest):
    if manifest["kind"] in CUSTOM.get(manifest["apiVersion"], ()):
        assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_kustomize_builds_what_the_tests_look_at(base):
    built = kustomize(base)
    if built is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    assert by_name(built) == by_name(BUILT[base.name])


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_every_file_of_a_base_is_used_or_explained(base):
    kustomization = documents(base / "kustomization.yaml")[0]
    used = {"kustomization.yaml", *kustomization["resources"]}
    used |= {
        entry.rpartition("=")[2] for made in kustomization.get("configMapGenerator", ()) for entry in made["files"]
    }
    files = {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}
    unused = files - used
    readme = (DEPLOY / "README.md").read_text()
    assert all(f"{base.name}/{name}" in readme for name in unused), unused


@pytest.mark.parametrize(("spec", "container"), SERVERS)
def test_a_container_is_restricted(spec, container):
    pod, own = spec.get("securityContext", {}), container["securityContext"]
    effective = {**pod, **own}
    assert effective["runAsNonRoot"] is True
    assert effective["runAsUser"] >= 10_000
    assert effective["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}


@pytest.mark.parametrize(("spec", "container"), SERVERS)
def test_every_variable_is_an_option_of_serve(spec, container):
    variables = environment_of(container)
    assert container["args"] == ["serve"]
    assert variables
    assert set(variables) <= serve_variables()


@pytest.mark.parametrize(("spec", "container"), SERVERS)
def test_paths_are_mounted_and_volumes_are_there(spec, container):
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {mount["name"] for mount in mounts.values()} <= set(volumes)
    policies = mounts[environment_of(container)["EXTAUTHZ_POLICY"]]
    assert "subPath" not in policies, "a subPath is never updated, so nothing would be reloaded"
    assert "configMap" in volumes[policies["name"]]
    for value in environment_of(container).values():
        path = value.removeprefix("unix:")
        if path.startswith("/"):
            assert any(Path(path).is_relative_to(mount) for mount in mounts), f"{path} is on the read-only root"


@pytest.mark.parametrize(("spec", "container"), SERVERS)
def test_the_grace_period_is_longer_than_the_drain(spec, container):
    drain = float(environment_of(container)["EXTAUTHZ_DRAIN"])
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    # Kubernetes' default: an injected container cannot choose for the pod.
    assert spec.get("terminationGracePeriodSeconds", 30) >= sleep + drain + 5


# The two injected containers are the same, which is a test of its own.
@pytest.mark.parametrize(("spec", "container"), SERVERS[:-1])
def test_the_program_serves_with_the_options_of_the_manifest(spec, container, tmp_path):
    variables = moved(container, tmp_path)
    source = DEPLOY / "kubernetes" / "deployment" / "policies"
    for file in source.iterdir():
        Path(variables["EXTAUTHZ_POLICY"], file.name).write_text(file.read_text())
    variables["EXTAUTHZ_DRAIN"] = "0.2"
    with serving(container["args"], variables, tmp_path / "log") as server:
        assert server.healthcheck().returncode == 0
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(name, {})
            if "httpGet" in probe:
                assert server.page(probe["httpGet"]["path"])
        assert server.terminate() == 0, server.log


@pytest.mark.parametrize(("spec", "container"), SERVERS)
def test_probes_ask_where_something_answers(spec, container):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = environment_of(container)
    assert variables["EXTAUTHZ_ADMIN"].endswith(f":{ports['extauthz-admin']}")
    assert "startupProbe" in container
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(name, {})
        if "httpGet" in probe:
            assert probe["httpGet"]["port"] in ports
        if "exec" in probe:
            assert probe["exec"]["command"] == ["/opt/extauthz/bin/extauthz", "healthcheck"]


def test_selectors_select_the_pods_and_ports_lead_to_them():
    named = by_name(BUILT["deployment"])
    template = named["Deployment/extauthz"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    container = template["spec"]["containers"][0]
    selectors = [
        named["Deployment/extauthz"]["spec"]["selector"]["matchLabels"],
        named["Service/extauthz"]["spec"]["selector"],
        named["Service/extauthz-headless"]["spec"]["selector"],
        named["PodDisruptionBudget/extauthz"]["spec"]["selector"]["matchLabels"],
        named["NetworkPolicy/extauthz"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in template["spec"]["topologySpreadConstraints"]),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    names = {port["name"] for port in container["ports"]}
    for service in ("Service/extauthz", "Service/extauthz-headless"):
        assert {port["targetPort"] for port in named[service]["spec"]["ports"]} <= names
    assert named["HorizontalPodAutoscaler/extauthz"]["spec"]["minReplicas"] >= 2
    assert "replicas" not in named["Deployment/extauthz"]["spec"], "it would undo what the autoscaler did"
    monitor = by_name(BUILT["monitoring"])["ServiceMonitor/extauthz"]["spec"]
    headless = named["Service/extauthz-headless"]
    assert monitor["selector"]["matchLabels"].items() <= headless["metadata"]["labels"].items()
    assert not monitor["selector"]["matchLabels"].items() <= named["Service/extauthz"]["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {p["name"] for p in headless["spec"]["ports"]}


def test_without_policies_of_ones_own_everything_is_refused():
    for base in ("deployment", "sidecar"):
        config = by_name(BUILT[base])["ConfigMap/extauthz-policies"]
        (policy,) = config["data"].values()
        assert "\nspec: {}\n" in policy
        assert config["metadata"]["name"] == "extauthz-policies", "a hash in the name would make new pods"


def test_both_injection_templates_make_the_same_container():
    pods = [pod["spec"]["initContainers"][0] for pod in INJECTED.values()]
    assert pods[0] == pods[1]
    assert pods[0]["restartPolicy"] == "Always"


def test_the_proxy_and_the_sidecar_meet_at_the_socket():
    entry = by_name(BUILT["sidecar"])["ServiceEntry/extauthz-sidecar"]["spec"]
    (endpoint,) = entry["endpoints"]
    (port,) = entry["ports"]
    assert entry["resolution"] == "STATIC"
    assert set(endpoint) == {"address"}, "Istio refuses ports at a Unix endpoint"
    (container,) = (c for c in containers(INJECTED["extauthz-gateway"]) if c["name"] == "extauthz")
    assert endpoint["address"] == "unix://" + environment_of(container)["EXTAUTHZ_LISTEN"].removeprefix("unix:")
    (proxy,) = (c for c in containers(INJECTED["extauthz-gateway"]) if c["name"] == "istio-proxy")
    assert proxy["volumeMounts"][0] in container["volumeMounts"]
    (provider,) = SIDECAR_VALUES["meshConfig"]["extensionProviders"]
    assert provider["envoyExtAuthzGrpc"]["service"] in entry["hosts"]
    assert provider["envoyExtAuthzGrpc"]["port"] == port["number"]
    policy = by_name(BUILT["sidecar"])["AuthorizationPolicy/ask-extauthz"]["spec"]
    assert policy["provider"]["name"] == provider["name"]
    # The proxy of Istio runs as user and group 1337.
    assert container["securityContext"]["runAsGroup"] == 1337
    assert environment_of(container)["EXTAUTHZ_LISTEN_MODE"] == "0660"


def test_the_mesh_asks_the_service_that_the_deployment_has():
    (provider,) = documents(DEPLOY / "kubernetes" / "istio" / "istiod-values.yaml")[0]["meshConfig"][
        "extensionProviders"
    ]
    service = by_name(BUILT["deployment"])["Service/extauthz"]
    metadata = service["metadata"]
    host = f"{metadata['name']}.{metadata['namespace']}.svc.cluster.local"
    assert provider["envoyExtAuthzGrpc"]["service"] == host
    assert provider["envoyExtAuthzGrpc"]["port"] == service["spec"]["ports"][0]["port"]
    assert by_name(BUILT["istio"])["AuthorizationPolicy/ask-extauthz"]["spec"]["provider"]["name"] == provider["name"]


def test_a_gateway_may_name_the_service():
    named = by_name(BUILT["envoy-gateway"])
    policy, grant = named["SecurityPolicy/extauthz"], named["ReferenceGrant/extauthz"]
    (reference,) = policy["spec"]["extAuth"]["grpc"]["backendRefs"]
    service = by_name(BUILT["deployment"])["Service/extauthz"]
    assert (reference["name"], reference["namespace"]) == (
        service["metadata"]["name"],
        service["metadata"]["namespace"],
    )
    assert reference["port"] == service["spec"]["ports"][0]["port"]
    assert grant["metadata"]["namespace"] == reference["namespace"]
    assert grant["spec"]["from"][0]["namespace"] == policy["metadata"]["namespace"]
    assert policy["spec"]["extAuth"]["failOpen"] is False


def test_the_proxy_may_use_the_socket_and_others_may_not(tmp_path):
    container = INJECTED["extauthz"]["spec"]["initContainers"][0]
    security = container["securityContext"]
    service = as_user(str(security["runAsUser"]), str(security["runAsGroup"]))
    if not service:
        pytest.skip("only root can run as others")
    # An emptyDir is open to all users of its pod.
    directory = Path(tempfile.mkdtemp(prefix="extauthz-pod-"))
    try:
        directory.chmod(0o777)
        variables = moved(container, directory)
        for made in directory.rglob("*"):
            made.chmod(0o777)
        shutil.copy(
            DEPLOY / "kubernetes" / "sidecar" / "policies" / "deny-everything.yaml", variables["EXTAUTHZ_POLICY"]
        )
        with serving(container["args"], variables, tmp_path / "log", (*service, *EXTAUTHZ), cwd=ROOT) as server:
            proxy, stranger = as_user("1337", "1337"), as_user("65534", "65534")
            assert server.healthcheck(*proxy, *EXTAUTHZ).returncode == 0
            assert server.healthcheck(*stranger, *EXTAUTHZ).returncode == 1
    finally:
        shutil.rmtree(directory)
