"""The files that users copy are what the program prints, and Envoy takes them."""

from pathlib import Path

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
