"""The files that users copy are what the program prints, and Envoy takes them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.cli import main
from extauthz.mesh.envoy import validate

ROOT = Path(__file__).parents[2]
POLICIES = str(ROOT / "examples" / "story" / "policies.yaml")
MADE_BY = {
    "envoy.yaml": ["--mode", "ext-authz"],
    "istio.yaml": ["--istio", "--authz-address", "extauthz.istio-system.svc.cluster.local:9191"],
}


@pytest.mark.parametrize("name", MADE_BY)
def test_a_file_is_what_its_command_prints(name, capsys):
    try:
        main(["envoy-config", "--policy", POLICIES, *MADE_BY[name]])
    except SystemExit as ended:
        assert not ended.code  # noqa: PT017
    assert capsys.readouterr().out == (ROOT / "deploy" / name).read_text()


@pytest.mark.envoy
def test_envoy_takes_the_configuration():
    validate(yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text()))


def test_the_example_is_clean(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["validate", "--strict", POLICIES])
    assert ended.value.code == 0, capsys.readouterr().out


@pytest.mark.envoy
def test_envoy_takes_the_filter_that_istio_makes_with_our_patch():
    """The EnvoyFilter, merged into what istiod writes for an extension provider."""
    bootstrap = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text())
    (manager,) = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    ours = manager["typed_config"]["http_filters"][0]["typed_config"]
    made_by_istio = {
        "@type": ours["@type"],
        "grpc_service": {"envoy_grpc": {"cluster_name": "extauthz", "authority": "outbound_.9191"}, "timeout": "1s"},
        "transport_api_version": "V3",
        "status_on_error": {"code": "ServiceUnavailable"},
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": "istio-ext-authz"}},
        },
    }
    resource = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "istio" / "envoyfilter.yaml").read_text())
    (patch,) = resource["spec"]["configPatches"]
    assert patch["match"]["listener"]["filterChain"]["filter"]["name"] == manager["name"]
    assert patch["patch"]["value"]["name"] == "envoy.filters.http.ext_authz"
    merged = merge(made_by_istio, patch["patch"]["value"]["typed_config"])
    assert merged["encode_raw_headers"]
    assert merged["grpc_service"]["timeout"] == "1s"
    # What this service recommends for an Envoy by itself, and nothing less.
    assert set(ours) <= set(merged)
    assert merged["grpc_service"]["retry_policy"]["retry_on"] == ours["grpc_service"]["retry_policy"]["retry_on"]
    manager["typed_config"]["http_filters"][0]["typed_config"] = merged
    validate(bootstrap)


def merge(message: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Two protobuf messages in JSON form, merged: fields of the patch win, messages are merged in turn."""
    merged = dict(message)
    for name, value in patch.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merge(merged[name], value) if both else value
    return merged
