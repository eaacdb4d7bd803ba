"""What deploy/README.md tells people to type: the files are there, the values exist, the overlay builds."""

from __future__ import annotations

import os
import re
from typing import Any

import jsonschema
import pytest
import yaml
from deploy_helm import Chart
from deploy_manifests import DEPLOY, ROOT, build, by_name, kustomize

README = (DEPLOY / "README.md").read_text()
CHART = Chart(DEPLOY / "helm" / "extauthz")
SCHEMA = yaml.safe_load((CHART.path / "values.schema.json").read_text())
COMMANDS = [
    line.strip() for line in re.findall(r"^ {4,}(?:kubectl|helm|docker|extauthz|envoy) .*", README, re.MULTILINE)
]


def test_there_are_commands():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_paths_in_a_command_exist(command):
    for path in re.findall(r"(?<=[\s=])(?:deploy|examples)/[\w./-]+", command):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("helm install")])
def test_values_in_a_command_are_taken(command):
    values: dict[str, Any] = {}
    for name, value in re.findall(r"--set (\w+)=(\S+)", command):
        values[name] = value
    jsonschema.validate(CHART.values(values), SCHEMA)
    assert CHART.documents("extauthz", "extauthz", values)


def test_the_table_of_values_names_values_that_there_are():
    table = README.split("## The chart's values")[1].split("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([\w.*]+)`", row)
    }
    for name in named:
        values: Any = CHART.defaults
        for part in name.removesuffix(".*").split("."):
            assert part in values, name
            values = values[part]


def test_namespaces_get_the_label_that_the_network_policy_wants():
    rule = by_name(build(DEPLOY / "kubernetes" / "deployment"))["NetworkPolicy/extauthz"]["spec"]["ingress"][0]
    (label,) = rule["from"][0]["namespaceSelector"]["matchLabels"].items()
    commands = [command for command in COMMANDS if command.startswith("kubectl label namespace")]
    assert commands
    assert all(command.endswith(f" {label[0]}={label[1]}") for command in commands)


def test_the_overlay_builds(tmp_path):
    text = README.split("An overlay of your own puts yours in")[1].split("\n\n")[1]
    overlay = yaml.safe_load(text)
    (base,) = overlay["resources"]
    # The example stands beside a checkout of the repository.
    assert base.startswith("../extauthz/")
    overlay["resources"] = [os.path.relpath(ROOT / base.removeprefix("../extauthz/"), tmp_path.resolve())]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    (tmp_path / "policies.yaml").write_text("kind: mine\n")
    built = kustomize(tmp_path)
    if built is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    named = by_name(built)
    assert named["ConfigMap/extauthz-policies"]["data"] == {"policies.yaml": "kind: mine\n"}
    (container,) = named["Deployment/extauthz"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/extauthz:0.1.0"
