"""The dependency audit passes here, and says so only when it has asked."""

import base64
import hashlib
import json
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from audit.__main__ import NOT_ASKED, WELL, WRONG, status
from audit.checks import imports, offline_problems, table, versions
from audit.installed import changed_files, closure, is_permitted
from audit.project import ROOT, RUNTIME, Declared, documented, imported_modules, name_of
from audit.sbom import text_of, write
from audit.vulnerabilities import Answer, read_answer

DECLARED = Declared.read()
ASKED = {"a": "1", "b": "2"}


def test_nothing_is_wrong_here():
    assert offline_problems(DECLARED) == []


def test_the_page_of_dependencies_names_exactly_those_of_the_project():
    assert documented().keys() == DECLARED.names()


def test_every_row_of_the_page_says_what_for_and_under_which_licence():
    for name, cells in documented().items():
        assert cells[0], name
        assert is_permitted(cells[-1]), name


@pytest.mark.parametrize(
    ("problems", "answer", "expected"),
    [
        ([], Answer((), {}), WELL),
        (["x"], Answer((), {}), WRONG),
        ([], Answer(("a 1: PYSEC-1",), {}), WRONG),
        ([], Answer((), {"a": "no network"}), NOT_ASKED),
        (["x"], Answer((), {"a": "no network"}), WRONG),
    ],
)
def test_the_status_tells_well_from_wrong_from_not_asked(problems, answer, expected):
    assert status(problems, answer) == expected


def test_what_pip_audit_skips_was_not_asked():
    skipped = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (2)"}
    output = json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}, skipped]})
    assert read_answer(output, "", ASKED) == Answer((), {"b": skipped["skip_reason"]})


def test_what_pip_audit_does_not_mention_was_not_asked():
    output = json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]})
    assert read_answer(output, "", ASKED).not_asked == {"b": "not in the answer"}


def test_when_pip_audit_fails_nothing_was_asked():
    answer = read_answer("", "Traceback\nConnectionError: no network\n", ASKED)
    assert answer == Answer((), dict.fromkeys(ASKED, "ConnectionError: no network"))


def test_vulnerabilities_are_told_with_the_version_that_mends_them():
    found = {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}
    dependencies = [{"name": "a", "version": "1", "vulns": [found]}, {"name": "b", "version": "2", "vulns": []}]
    answer = read_answer(json.dumps({"dependencies": dependencies}), "", ASKED)
    assert answer == Answer(("a 1: PYSEC-1, fixed in 1.1, 2.0",), {})


def test_what_is_missing_or_too_old_or_not_documented_is_wrong():
    extended = Declared({**DECLARED.extras, "more": (Requirement("no-such-package"), Requirement("pyyaml>=99"))})
    problems = "\n".join((*versions(extended), *table(extended)))
    assert "no-such-package is not installed" in problems
    assert "pyproject.toml wants >=99" in problems
    assert "docs/dependencies.md lacks no-such-package" in problems


def test_what_is_imported_without_being_declared_is_wrong():
    fewer = tuple(one for one in DECLARED.extras[RUNTIME] if name_of(one) != "pyyaml")
    declared = Declared({**DECLARED.extras, RUNTIME: fewer})
    assert [problem.partition(" ")[2] for problem in imports(declared)] == [
        "imports yaml of pyyaml, which is not in pyproject.toml"
    ]
    assert [*table(declared)] == ["docs/dependencies.md names pyyaml, which is not in pyproject.toml"]


def test_imports_are_found_where_they_are(tmp_path):
    (tmp_path / "extauthz" / "inner").mkdir(parents=True)
    (tmp_path / "extauthz" / "inner" / "a.py").write_text(
        "import os\ndef f():\n    from google.protobuf import message\n"
    )
    assert imported_modules(tmp_path) == {"google.protobuf": "extauthz/inner/a.py"}


def test_a_licence_that_nobody_looked_at_is_not_permitted():
    assert not is_permitted("GPL-3.0-only")
    assert not is_permitted("unknown")


def test_a_changed_file_of_a_distribution_is_found(tmp_path):
    module = tmp_path / "thing.py"
    module.write_text("value = 1\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(module.read_bytes()).digest()).rstrip(b"=").decode()
    information = tmp_path / "thing-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (information / "RECORD").write_text(
        f"thing.py,sha256={digest},10\ngone.py,sha256={digest},10\nthing-1.0.dist-info/RECORD,,\n"
    )
    found = metadata.PathDistribution(information)
    assert changed_files(found) == ["gone.py"]
    module.write_text("value = 2\n")
    assert changed_files(found) == ["thing.py", "gone.py"]


# ---- the bill of materials -------------------------------------------------------------------------------------------


def test_the_bill_of_materials_is_valid_and_names_everything_that_comes_along(tmp_path):
    # `write` refuses what the schema of CycloneDX does not allow.
    write(DECLARED, tmp_path / "build" / "sbom.cdx.json")
    found = json.loads((tmp_path / "build" / "sbom.cdx.json").read_text())
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    components = {one["name"]: one for one in found["components"]}
    assert DECLARED.names(RUNTIME) <= components.keys()
    assert components.keys() == {*closure(DECLARED.extras[RUNTIME]), "libnghttp2"}
    for name, one in components.items():
        assert one["licenses"], name
        assert one["purl"].startswith("pkg:generic/nghttp2" if name == "libnghttp2" else f"pkg:pypi/{name}@")


def test_the_bill_of_materials_says_what_needs_what():
    found = json.loads(text_of(DECLARED))
    needs = {one["ref"]: set(one.get("dependsOn", ())) for one in found["dependencies"]}
    assert needs["extauthz"] == DECLARED.names(RUNTIME) | {"libnghttp2"}
    assert "httpcore" in needs["httpx"]


def test_the_licence_of_the_project_is_the_one_of_its_file():
    root = json.loads(text_of(DECLARED))["metadata"]["component"]
    assert root["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
