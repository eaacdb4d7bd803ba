"""The formats that docs/verify.md shows are those that are read, and its example is true."""

from __future__ import annotations

import re
from pathlib import Path

from extauthz.authorizer import Authorizer
from extauthz.checkapi.build import check_request
from extauthz.mesh.verify import casefile, expectation, limits
from extauthz.mesh.verify.casefile import read_case_file, read_requests
from extauthz.mesh.verify.subject import our_outcome
from extauthz.mesh.verify.trials import trial_of

DOCS = Path(__file__).parents[3] / "docs"


def block(language: str) -> str:
    match = re.search(rf"^```{language}[^\n]*\n(.*?)^```", (DOCS / "verify.md").read_text(), re.DOTALL | re.MULTILINE)
    assert match is not None
    return match[1]


def test_the_example_of_a_conformance_file_is_true(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(block("yaml"))
    (case_set,) = read_case_file(file)
    trial = trial_of(case_set)
    authorizer = Authorizer(trial.policies.resources, trial.policies.options)
    for case in case_set.cases:
        probe = case.probe
        message = check_request(probe.method, probe.target, probe.headers, host=probe.host or "")
        assert message is not None
        assert case.expectation is not None
        assert list(case.expectation.failures(our_outcome(authorizer, message))) == []


def test_the_example_of_requests_is_read(tmp_path: Path) -> None:
    file = tmp_path / "example.jsonl"
    file.write_text(block("json"))
    assert len(read_requests(file)) == 2


def test_every_member_is_documented() -> None:
    text = (DOCS / "verify.md").read_text()
    members = casefile.REQUEST_MEMBERS | casefile.SET_MEMBERS | casefile.OPTION_MEMBERS | set(expectation.MEMBERS)
    assert [member for member in sorted(members) if f"`{member}`" not in text and f"{member}:" not in text] == []


def test_every_known_limit_is_documented() -> None:
    text = (DOCS / "limits.md").read_text()
    for name in (limits.REPEATED_HEADER, limits.NOT_UTF8, limits.MEMBER_ORDER, limits.TOO_LARGE):
        assert f"(`{name}`)" in text
