"""Alerts on data: promtool evaluates each on metrics for which it has to fire, and on some for which it must not.

The data is in `alerts.test.yaml`, in promtool's own format. That every alert has its cases is checked without promtool.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from deploy_manifests import DEPLOY, ROOT, build, by_name, documents
from deploy_promql import selectors

from extauthz.server.metrics import FAMILIES, Kind

SPEC = by_name(build(DEPLOY / "kubernetes" / "monitoring"))["PrometheusRule/extauthz"]["spec"]
EXPRESSIONS: dict[str, str] = {rule["alert"]: rule["expr"] for group in SPEC["groups"] for rule in group["rules"]}
DATA = Path(__file__).with_name("alerts.test.yaml")
CASES: list[dict[str, Any]] = documents(DATA)[0]["tests"]
DOWNLOADED = ROOT / ".build" / "promtool"
"""Where `make deploy-check` puts it when none is installed."""

TARGET_LABELS = {"namespace", "pod", "container"}
"""What Prometheus adds to series that it scrapes, as far as alerts look at it."""


def promtool() -> str | None:
    """The promtool to use: $PROMTOOL, or the one on the path, or the one that was downloaded."""
    downloaded = str(DOWNLOADED) if DOWNLOADED.exists() else None
    return os.environ.get("PROMTOOL") or shutil.which("promtool") or downloaded


@pytest.mark.skipif(promtool() is None, reason="promtool is not installed; make deploy-check gets it where it may")
def test_the_alerts_fire_when_they_should_and_only_then(tmp_path):
    # The operator hands Prometheus the rules as they are in the spec of the resource.
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(SPEC))
    shutil.copy(DATA, tmp_path)
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", DATA.name]):
        done = subprocess.run(
            [str(promtool()), *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", EXPRESSIONS)
def test_an_alert_has_data_on_which_it_fires_and_data_on_which_it_does_not(alert):
    used = {selector.name for selector in selectors(promql_parser.parse(EXPRESSIONS[alert]))}
    firing, silent = [], []
    for case in CASES:
        expected = [test["exp_alerts"] for test in case["alert_rule_test"] if test["alertname"] == alert]
        # Without the alert's own metrics its silence would say nothing.
        if expected and used & {name for name, _ in series_of(case)}:
            (firing if any(expected) else silent).append(case["name"])
    assert firing
    assert silent


def test_the_cases_are_about_alerts_that_exist():
    assert {test["alertname"] for case in CASES for test in case["alert_rule_test"]} == set(EXPRESSIONS)
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_the_data_is_of_metrics_that_are_exported():
    exported: dict[str, set[str]] = {}
    for family in FAMILIES:
        name = family.name if family.standard else f"extauthz_{family.name}"
        labels = set(family.labels) | TARGET_LABELS
        match family.kind:
            case Kind.COUNTER:
                exported[f"{name}_total"] = labels
            case Kind.GAUGE:
                exported[name] = labels
            case Kind.HISTOGRAM:
                exported[f"{name}_bucket"] = labels
                exported[f"{name}_count"] = labels - {"le"}
    for case in CASES:
        for name, labels in series_of(case):
            assert labels == exported[name], f"{case['name']}: {name}"


def series_of(case: dict[str, Any]) -> list[tuple[str, set[str]]]:
    """Each series of a case: the name of its metric, and those of its labels."""
    parsed = [promql_parser.parse(series["series"]) for series in case["input_series"]]
    return [(series.name, {matcher.name for matcher in series.matchers.matchers}) for series in parsed]
