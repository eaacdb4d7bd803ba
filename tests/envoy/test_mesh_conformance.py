"""Every case file replayed on the real Envoy: its built-in filters, and we, answer as the file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from extauthz.authorizer import AuthorizerOptions
from extauthz.mesh.verify import report
from extauthz.mesh.verify.run import verify
from extauthz.mesh.verify.trials import from_case_files

pytestmark = pytest.mark.envoy

CASES = sorted((Path(__file__).parents[1] / "conformance" / "cases").glob("*.yaml"))


def test_the_case_files_are_true() -> None:
    result = verify(from_case_files(CASES, None, AuthorizerOptions()))
    assert result.compared > 1000
    assert result.agreed, "\n".join(report.lines(result))
