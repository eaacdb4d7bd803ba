"""Random policies and requests: the mesh's built-in filters and we agree. `make verify` runs the same for longer."""

from __future__ import annotations

import pytest

from extauthz.mesh.verify import report
from extauthz.mesh.verify.run import verify
from extauthz.mesh.verify.trials import from_random_policies

pytestmark = pytest.mark.envoy


@pytest.mark.timeout(300)
def test_random_policies_are_enforced_alike() -> None:
    result = verify(from_random_policies(sets=60, count=2_000, seed=2026))
    print(report.summary(result))
    assert (result.sets, result.compared) == (60, 2_000)
    assert result.agreed, "\n".join(report.lines(result))


@pytest.mark.timeout(300)
def test_random_policies_are_enforced_alike_by_a_running_server() -> None:
    result = verify(from_random_policies(sets=8, count=400, seed=7), through_envoy=True)
    assert result.compared == 400
    assert result.agreed, "\n".join(report.lines(result))
