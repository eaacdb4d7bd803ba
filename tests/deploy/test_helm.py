"""The Helm chart: what it renders, that the kustomize bases say the same, and which values it refuses."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from deploy_helm import KUBERNETES, Chart, helm, helm_template
from deploy_manifests import DEPLOY, Manifest, build, by_name, containers, documents, injected_pod, injection_templates
from deploy_serve import environment_of, moved, serve_variables, serving

from extauthz._version import __version__

PATH = DEPLOY / "helm" / "extauthz"
CHART = Chart(PATH)
SCHEMA = json.loads((PATH / "values.schema.json").read_text())
POLICY = (PATH / "files" / "deny-everything.yaml").read_text()
BUILT_IN = {"v1", "apps/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "defaults": ("extauthz", "extauthz", {}),
    "another release": ("edge", "edge", {"image": {"repository": "registry.example/extauthz", "tag": "1"}}),
    "everything on": (
        "extauthz",
        "extauthz",
        {
            "policies": {"a.yaml": POLICY, "b.yaml": POLICY.replace("deny-everything", "other")},
            "config": {
                "workload": "istio-system/app=istio-ingressgateway",
                "max-message-bytes": 16777216,
                "trust-domain-alias": ["old.example", "older.example"],
                "admin-reload": True,
                "jwks-refresh": 0.5,
                "decision-log": "-",
            },
            "tls": {"secretName": "extauthz-tls", "clientCa": True, "clientNames": ["proxy.example", "b.example"]},
            "podAnnotations": {"a": "b"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "imagePullSecrets": [{"name": "registry"}],
            "networkPolicy": {"extraEgress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}]},
            "istio": {"enabled": True},
            "monitoring": {"enabled": True},
        },
    ),
    "fixed size": (
        "extauthz",
        "extauthz",
        {"autoscaling": {"enabled": False}, "replicas": 3, "networkPolicy": {"enabled": False}, "drainSeconds": 30},
    ),
    "CPU alone": ("extauthz", "x", {"autoscaling": {"inFlight": 0}, "networkPolicy": {"monitoringNamespace": ""}}),
    "own ConfigMap": ("extauthz", "x", {"existingConfigMap": "mine", "monitoring": {"enabled": True, "alerts": False}}),
    "sidecar": (
        "extauthz",
        "istio-ingress",
        {
            "mode": "sidecar",
            "istio": {"enabled": True, "provider": "extauthz-sidecar"},
            "config": {"max-connection-age": 0},
        },
    ),
    "sidecar, monitored": (
        "edge",
        "shop",
        {
            "mode": "sidecar",
            "istio": {"enabled": True, "selector": {}},
            "monitoring": {"enabled": True, "dashboard": False},
        },
    ),
}

REFUSED: dict[str, dict[str, Any]] = {
    "an unknown mode": {"mode": "daemonset"},
    "an unknown value": {"replica": 2},
    "an unknown option": {"config": {"workloads": "a/b=c"}},
    "an option that the chart sets": {"config": {"listen": "0.0.0.0:1"}},
    "a value of the wrong type": {"config": {"workers": "two"}},
    "too few workers": {"config": {"workers": 0}},
    "a workload without its form": {"config": {"workload": "App=Web"}},
    "a file of decisions on a read-only root": {"config": {"decision-log": "/var/log/decisions"}},
    "a policy that is no file of policies": {"policies": {"README.md": "x"}},
    "policies that are not text": {"policies": {"a.yaml": {"kind": "x"}}},
    "client names without TLS": {"tls": {"clientNames": ["a"]}},
    "a client CA without a certificate": {"tls": {"clientCa": True}},
    "nobody may call": {"networkPolicy": {"clientNamespaceLabels": None}},
    "an empty image": {"image": {"repository": ""}},
    "half a replica": {"replicas": 0.5},
    "no drain": {"drainSeconds": 0},
}


def case_documents(case: str) -> list[Manifest]:
    release, namespace, values = CASES[case]
    return CHART.documents(release, namespace, values)


def servers(case: str) -> list[tuple[Manifest, Manifest]]:
    """The pods of a case that run the service, injected ones included, with their containers."""
    manifests = case_documents(case)
    (values,) = (m["data"]["values.yaml"] for m in manifests if m["metadata"]["name"].endswith("-istiod-values"))
    parsed = yaml.safe_load(values)
    pods = (
        [injected_pod(text) for text in injection_templates(parsed).values()]
        if "sidecarInjectorWebhook" in parsed
        else []
    )
    found = [(manifest, container) for manifest in [*manifests, *pods] for container in containers(manifest)]
    return [(manifest, container) for manifest, container in found if container["name"] == "extauthz"]


@pytest.mark.parametrize("case", CASES)
def test_manifests_are_valid(case):
    manifests = case_documents(case)
    by_name(manifests)
    for manifest in [*manifests, *(manifest for manifest, _ in servers(case))]:
        assert manifest["metadata"]["namespace"]
        if manifest["apiVersion"] in BUILT_IN:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_helm_renders_what_the_tests_look_at(case, tmp_path):
    if helm() is None:
        pytest.skip("helm is not installed")
    release, namespace, values = CASES[case]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = helm_template(PATH, release, namespace, file)
    assert done.returncode == 0, done.stderr
    made = by_name([document for document in yaml.safe_load_all(done.stdout) if document])
    assert opened(made) == opened(by_name(case_documents(case)))


def opened(named: dict[str, Manifest]) -> dict[str, Manifest]:
    """The same with the YAML inside of ConfigMaps read, so that its style does not matter."""
    result = copy.deepcopy(named)
    for manifest in result.values():
        for key, text in manifest.get("data", {}).items():
            inner = yaml.safe_load(text)
            for name, template in inner.get("sidecarInjectorWebhook", {}).get("templates", {}).items():
                inner["sidecarInjectorWebhook"]["templates"][name] = yaml.safe_load(template)
            manifest["data"][key] = inner
    return result


@pytest.mark.parametrize("case", CASES)
def test_the_values_are_what_the_schema_wants(case):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(CHART.values(CASES[case][2]), SCHEMA)


@pytest.mark.parametrize("why", REFUSED)
def test_the_schema_refuses(why, tmp_path):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(CHART.values(REFUSED[why]), SCHEMA)
    if helm() is not None and why != "nobody may call":  # helm takes null for "without the default"
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(REFUSED[why]))
        done = helm_template(PATH, "x", "x", file)
        assert done.returncode != 0
        assert "schema" in done.stderr


def test_the_schema_knows_every_value_and_every_option():
    def known(values: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        for name, value in values.items():
            assert name in schema["properties"], f"{where}{name}"
            if isinstance(value, dict) and "properties" in schema["properties"][name]:
                known(value, schema["properties"][name], f"{where}{name}.")

    known(CHART.defaults, SCHEMA, "")
    assert set(SCHEMA["properties"]) - {"global"} == set(CHART.defaults)
    options = {f"EXTAUTHZ_{name.upper().replace('-', '_')}" for name in SCHEMA["properties"]["config"]["properties"]}
    # The chart sets these by itself, or they are files in a root that cannot be written.
    own = {"POLICY", "LISTEN", "LISTEN_MODE", "ADMIN", "DRAIN", "JWKS_CACHE_DIR", "JWKS_CA"}
    own |= {"TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "TLS_CLIENT_NAME", "DECISION_LOG_MAX_BYTES", "DECISION_LOG_KEEP"}
    assert options | {f"EXTAUTHZ_{name}" for name in own} == serve_variables()


@pytest.mark.parametrize("case", CASES)
def test_every_variable_is_an_option_and_the_grace_period_is_longer_than_the_drain(case):
    for manifest, container in servers(case):
        variables = environment_of(container)
        assert set(variables) <= serve_variables()
        assert len(variables) == len(container["env"])
        grace = manifest["spec"].get("template", {}).get("spec", {}).get("terminationGracePeriodSeconds", 30)
        assert grace >= float(variables["EXTAUTHZ_DRAIN"]) + 5


@pytest.mark.parametrize("case", ["everything on", "sidecar"])
def test_the_program_serves_with_what_the_chart_sets(case, tmp_path):
    _, container = servers(case)[0]
    # There are no certificates here; that their files are mounted is a test of its own.
    variables = {name: value for name, value in moved(container, tmp_path).items() if "_TLS_" not in name}
    Path(variables["EXTAUTHZ_POLICY"], "policies.yaml").write_text(POLICY)
    with serving(container["args"], variables | {"EXTAUTHZ_DRAIN": "0.2"}, tmp_path / "log") as server:
        assert server.healthcheck().returncode == 0
        assert server.terminate() == 0


def test_values_become_options_as_they_are_written():
    ((_, container),) = servers("everything on")
    variables = environment_of(container)
    assert variables["EXTAUTHZ_MAX_MESSAGE_BYTES"] == "16777216"
    assert variables["EXTAUTHZ_TRUST_DOMAIN_ALIAS"] == "old.example older.example"
    assert variables["EXTAUTHZ_ADMIN_RELOAD"] == "true"
    assert variables["EXTAUTHZ_TLS_CLIENT_NAME"] == "proxy.example b.example"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all(
        str(Path(value).parent) in mounts
        for name, value in variables.items()
        if re.search("TLS_(CERT|KEY|CLIENT_CA)", name)
    )


def plain(manifest: Manifest) -> Manifest:
    """A manifest without what the two ways of installing differ in by nature: labels about the release, pull policy."""
    text = json.dumps(manifest, sort_keys=True)
    plainer: Manifest = json.loads(re.sub(r'"imagePullPolicy": "\w+", ', "", text))
    _forget_labels(plainer)
    return plainer


def _forget_labels(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _forget_labels(item)
    if isinstance(value, dict):
        for name in [name for name in value if re.match(r"app\.kubernetes\.io/(?!name|component)|helm\.sh/", name)]:
            del value[name]
        for item in value.values():
            _forget_labels(item)
        if "env" in value:
            value["env"] = sorted(value["env"], key=lambda entry: entry["name"])


def test_the_deployment_is_the_one_of_kustomize():
    chart = by_name([plain(manifest) for manifest in case_documents("defaults")])
    base = by_name([plain(manifest) for manifest in build(DEPLOY / "kubernetes" / "deployment")])
    assert set(base) - set(chart) == {"Namespace/extauthz"}
    assert set(chart) - set(base) == {"ConfigMap/extauthz-istiod-values"}
    for name in set(base) & set(chart):
        assert chart[name] == base[name], name


def test_the_sidecar_is_the_one_of_kustomize():
    chart = by_name([plain(manifest) for manifest in case_documents("sidecar")])
    base = by_name([plain(manifest) for manifest in build(DEPLOY / "kubernetes" / "sidecar")])
    for name in set(base) & set(chart):
        if name != "ServiceEntry/extauthz-sidecar" and name != "DestinationRule/extauthz-sidecar":
            without_app_labels(chart[name])
            without_app_labels(base[name])
            assert chart[name] == base[name], name
    assert set(base) <= set(chart)
    values = documents(DEPLOY / "kubernetes" / "sidecar" / "istiod-values.yaml")[0]
    given = yaml.safe_load(chart["ConfigMap/extauthz-istiod-values"]["data"]["values.yaml"])
    for name, template in injection_templates(values).items():
        theirs = plain(yaml.safe_load(injection_templates(given)[name]))
        (container,) = theirs["spec"]["initContainers"]
        container["env"] = [entry for entry in container["env"] if entry["name"] != "EXTAUTHZ_MAX_CONNECTION_AGE"]
        assert theirs == plain(yaml.safe_load(template))


def without_app_labels(manifest: Manifest) -> None:
    manifest["metadata"].pop("labels", None)


def test_alerts_and_dashboard_are_those_of_kustomize():
    chart = by_name(case_documents("everything on"))
    base = by_name(build(DEPLOY / "kubernetes" / "monitoring"))
    for name in ("PrometheusRule/extauthz", "ServiceMonitor/extauthz"):
        theirs, ours = plain(chart[name])["spec"], plain(base[name])["spec"]
        ours.pop("namespaceSelector", None)
        assert theirs == ours
    key = "ConfigMap/extauthz-dashboard"
    assert json.loads(chart[key]["data"]["extauthz.json"]) == json.loads(base[key]["data"]["extauthz.json"])


def test_without_policies_everything_is_refused_and_the_notes_say_so():
    assert by_name(case_documents("defaults"))["ConfigMap/extauthz-policies"]["data"] == {
        "deny-everything.yaml": POLICY
    }
    assert "every request is refused" in CHART.render("extauthz", "extauthz", {})["NOTES.txt"]
    given = by_name(case_documents("everything on"))["ConfigMap/extauthz-policies"]["data"]
    assert set(given) == {"a.yaml", "b.yaml"}
    assert "every request is refused" not in CHART.render(*CASES["everything on"])["NOTES.txt"]
    assert "ConfigMap/extauthz-policies" not in by_name(case_documents("own ConfigMap"))


def test_versions_are_that_of_the_package():
    assert CHART.about["version"] == CHART.about["appVersion"] == __version__
    for path in ("README.md", "Dockerfile", "kubernetes/sidecar/istiod-values.yaml"):
        assert f"extauthz:{__version__}" in (DEPLOY / path).read_text(), path
    (image,) = documents(DEPLOY / "kubernetes" / "deployment" / "kustomization.yaml")[0]["images"]
    assert image["newTag"] == __version__
