"""Every folder in examples/: it loads without a warning; the real Envoy and this service answer as its cases say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extauthz.authorizer import AuthorizerOptions
from extauthz.cli import main
from extauthz.mesh.verify import report
from extauthz.mesh.verify.casefile import read_case_file
from extauthz.mesh.verify.run import verify
from extauthz.mesh.verify.trials import from_case_files

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, capsys.readouterr().out


def test_there_are_some_and_the_story_is_one() -> None:
    assert len(FOLDERS) >= 5
    assert EXAMPLES / "story" in FOLDERS


@each_folder
def test_an_example_is_whole(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "cases.yaml", "policies.yaml"]
    sets = read_case_file(folder / "cases.yaml")
    policies = (folder / "policies.yaml").read_text()
    assert all(one.policies == policies for one in sets)
    assert [one.title for one in sets if not one.title.startswith(folder.name)] == []
    cases = [case for one in sets for case in one.cases]
    statuses = {case.expectation.status for case in cases if case.expectation is not None}
    assert len(cases) >= 5
    assert {200, 403} <= statuses
    assert [case.probe.name for case in cases if case.expectation is None] == []


@each_folder
def test_an_example_loads_without_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "validate", "--strict", "--json", str(folder / "policies.yaml"))
    assert (code or 0, json.loads(out)) == (0, [])


@each_folder
def test_the_readme_tells_how_to_replay_it(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text.startswith("# ")
    assert f"extauthz verify --cases examples/{folder.name}/cases.yaml" in text


@pytest.mark.envoy
@pytest.mark.parametrize("through_envoy", [False, True], ids=["authorizer", "envoy"])
def test_envoy_and_this_service_answer_as_the_examples_say(through_envoy: bool) -> None:
    files = [folder / "cases.yaml" for folder in FOLDERS]
    result = verify(from_case_files(files, None, AuthorizerOptions()), through_envoy=through_envoy)
    assert result.agreed, "\n".join(report.lines(result))
    assert result.sets == sum(len(read_case_file(file)) for file in files)
    assert result.compared == sum(len(one.cases) for file in files for one in read_case_file(file))


def test_policies_beside_the_cases_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("# ${not} a variable\n")
    (tmp_path / "c.yaml").write_text("policies-file: p.yaml\n---\ntitle: the same again\n")
    assert [one.policies for one in read_case_file(tmp_path / "c.yaml")] == ["# ${not} a variable\n"] * 2
