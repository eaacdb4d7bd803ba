"""The load test demo behind the real Envoy: every way to authorize gives the same answers under the same load."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from extauthz.loadtest import demo
from extauthz.mesh.bootstrap import bootstrap
from extauthz.mesh.filters import ExtAuthzSettings
from extauthz.server import native

pytestmark = pytest.mark.envoy


def test_every_way_gets_the_same_requests_and_answers_them_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native.available()[0]:
        pytest.skip("the native transport is not available")
    # A busy machine is late; no call is to fail for that.
    patient = partial(bootstrap, settings=ExtAuthzSettings(timeout=60))
    monkeypatch.setattr(demo, "bootstrap", patient)
    monkeypatch.setattr(demo, "LoadOptions", partial(demo.LoadOptions, timeout=60))
    reports = demo.run_all("100,200", 1.0)
    assert list(reports) == ["Envoy alone", "built-in filters", "extauthz, native", "extauthz, grpcio"]
    assert [floor.rate for floor in reports["Envoy alone"].floors] == [100, 200]
    for number, rate in enumerate((100, 200)):
        counts = {name: report.steps[number].counts for name, report in reports.items()}
        assert counts.pop("Envoy alone").allowed == rate
        assert {one.asked for one in counts.values()} == {rate}
        assert {one.failed for one in counts.values()} == {0}
        # The seed makes the requests the same: a tenth with an expired token (401) or none (403).
        assert len({(one.allowed, tuple(sorted(one.denied_by.items()))) for one in counts.values()}) == 1
        assert set(counts["built-in filters"].denied_by) == {"401", "403"}
    written = {path.name for path in demo.write(reports, tmp_path)}
    assert {
        "index.html",
        "percentiles-100.png",
        "percentiles-200.png",
        "latency.png",
        "throughput.png",
        "extauthz-native.json",
    } <= written
