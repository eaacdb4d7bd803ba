"""Reads what is in deploy/: YAML documents, and kustomizations as far as ours go.

A kustomization is built here from the fields `resources`, `namespace`, `labels`, `images` and `configMapGenerator`; any
other field is an error. That the real kustomize makes the same of it is tested where it is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASES = sorted(path.parent for path in (DEPLOY / "kubernetes").glob("*/kustomization.yaml"))
Manifest = dict[str, Any]

_CLUSTER_SCOPED = {"Namespace"}
_KNOWN_FIELDS = {
    *("apiVersion", "kind", "resources", "namespace", "labels", "images", "configMapGenerator", "generatorOptions"),
}


def documents(path: Path) -> list[Manifest]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def build(base: Path) -> list[Manifest]:
    """What `kustomize build` makes of a base."""
    kustomization = documents(base / "kustomization.yaml")[0]
    unknown = set(kustomization) - _KNOWN_FIELDS
    assert not unknown, f"{base}: this builder does not know {unknown}"
    manifests = [document for name in kustomization["resources"] for document in documents(base / name)]
    manifests += [_config_map(base, generator) for generator in kustomization.get("configMapGenerator", ())]
    for manifest in manifests:
        metadata = manifest["metadata"]
        if "namespace" in kustomization and manifest["kind"] not in _CLUSTER_SCOPED:
            metadata["namespace"] = kustomization["namespace"]
        for pairs in kustomization.get("labels", ()):
            metadata["labels"] = {**metadata.get("labels", {}), **pairs["pairs"]}
        for image in kustomization.get("images", ()):
            for container in containers(manifest):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['name']}:{image['newTag']}"
    return manifests


def kustomize(base: Path) -> list[Manifest] | None:
    """What the installed kustomize (alone or in kubectl) makes of a base; None when there is none."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, str(base)], capture_output=True, text=True, timeout=60, check=False)
            if done.returncode == 0:
                return [document for document in yaml.safe_load_all(done.stdout) if document]
            assert "unknown command" in done.stderr, done.stderr
    return None


def _config_map(base: Path, generator: Manifest) -> Manifest:
    data = {}
    for entry in generator["files"]:
        key, _, name = entry.rpartition("=")
        path = base / name
        data[key or path.name] = path.read_text()
    metadata: Manifest = {"name": generator["name"]}
    if labels := generator.get("options", {}).get("labels"):
        metadata["labels"] = dict(labels)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod_specs(manifest: Manifest) -> Iterator[Manifest]:
    """The pod specs in a manifest."""
    if manifest["kind"] == "Pod":
        yield manifest["spec"]
    elif "template" in manifest.get("spec", {}):
        yield manifest["spec"]["template"]["spec"]


def containers(manifest: Manifest) -> Iterator[Manifest]:
    """The containers in a manifest, initContainers first."""
    for spec in pod_specs(manifest):
        yield from spec.get("initContainers", ())
        yield from spec.get("containers", ())


def injected_pod(template: str) -> Manifest:
    """A pod as Istio makes it when this injection template is merged into one that has a proxy."""
    patch = yaml.safe_load(template)["spec"]
    spec: Manifest = {"initContainers": [], "containers": [{"name": "istio-proxy", "image": "istio/proxyv2:1.30.0"}]}
    spec["volumes"] = []
    for field in ("initContainers", "containers"):
        for container in patch.get(field, ()):
            present = next((other for other in spec[field] if other["name"] == container["name"]), None)
            if present is None:
                spec[field].append(container)
            else:
                present.update(container)
    spec["volumes"] += patch["volumes"]
    metadata = {"name": "pod", "namespace": "istio-ingress"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def injection_templates(values: Manifest) -> dict[str, str]:
    """The injection templates in values for istiod's chart, by name."""
    templates: dict[str, str] = values["sidecarInjectorWebhook"]["templates"]
    return templates


def name_of(manifest: Manifest) -> str:
    """Kind and name, for people."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def by_name(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The manifests by kind and name, each once."""
    named = {name_of(manifest): manifest for manifest in manifests}
    assert len(named) == len(manifests), json.dumps([name_of(manifest) for manifest in manifests])
    return named
