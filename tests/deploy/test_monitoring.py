"""Alerts and dashboard: every expression parses, and every metric and label in it is one that a server exports."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import promql_parser
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from deploy_manifests import DEPLOY, ROOT, Manifest, build, by_name, documents
from deploy_promql import selectors, vector
from deploy_serve import serving
from jwt.algorithms import RSAAlgorithm
from prometheus_client.parser import text_string_to_metric_families

from extauthz.server.metrics import FAMILIES
from extauthz.server.transport import CHECK_METHOD

MONITORING = DEPLOY / "kubernetes" / "monitoring"
NAMED = by_name(build(MONITORING))
ALERTS: list[Manifest] = NAMED["PrometheusRule/extauthz"]["spec"]["groups"][0]["rules"]
DASHBOARD = json.loads(NAMED["ConfigMap/extauthz-dashboard"]["data"]["extauthz.json"])
TARGET_LABELS = {"namespace", "pod", "job", "instance", "container", "service"}
"""What Prometheus adds to every series that it scrapes in a cluster."""

OPTIONAL = {"extauthz_worker_restarts_total": set[str]()}
"""Exported by a server with several workers only."""


@dataclass(slots=True)
class Exported:
    """What a server exports: labels by metric, and the values that some labels had."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    values: dict[tuple[str, str], set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The metrics of a server that has denied and failed, with a key set that it fetched."""
    directory = tmp_path_factory.mktemp("metrics")
    issuer = HTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=issuer.serve_forever, daemon=True).start()
    policies = directory / "policies.yaml"
    policies.write_text(
        (ROOT / "deploy" / "kubernetes" / "deployment" / "policies" / "deny-everything.yaml").read_text()
        + "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt}\n"
        f"spec: {{jwtRules: [{{issuer: a, jwksUri: 'http://127.0.0.1:{issuer.server_port}/keys'}}]}}\n"
    )
    variables = {
        "EXTAUTHZ_POLICY": str(policies),
        "EXTAUTHZ_LISTEN": "127.0.0.1:0",
        "EXTAUTHZ_ADMIN": "127.0.0.1:0",
        "EXTAUTHZ_DECISION_LOG": str(directory / "decisions"),
        "EXTAUTHZ_JWKS_WAIT": "30",
    }
    seen = Exported()
    with serving(["serve"], variables, directory / "log") as server:
        with grpc.insecure_channel(server.address) as channel:
            check = channel.unary_unary(CHECK_METHOD)
            with pytest.raises(grpc.RpcError):
                check(b"\xff", timeout=10)
            check(plain_request(), timeout=10)
        for family in text_string_to_metric_families(server.page("/metrics")):
            for sample in family.samples:
                seen.labels.setdefault(sample.name, set()).update(sample.labels)
                for label, value in sample.labels.items():
                    seen.values.setdefault((sample.name, label), set()).add(value)
    issuer.shutdown()
    issuer.server_close()
    return seen


class Keys(BaseHTTPRequestHandler):
    """An issuer's key set, and no log lines."""

    def do_GET(self) -> None:
        key = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"keys": [key]}).encode())

    def log_message(self, *_: object) -> None:
        pass


def plain_request() -> bytes:
    """A Check message for GET /."""
    from extauthz.protos.external_auth_pb2 import CheckRequest

    message = CheckRequest()
    message.attributes.request.http.method = "GET"
    message.attributes.request.http.path = "/"
    message.attributes.request.http.host = "a"
    return bytes(message.SerializeToString())


def alert_expressions() -> list[Any]:
    return [pytest.param(alert["expr"], id=alert["alert"]) for alert in ALERTS]


def dashboard_expressions() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def plain(expression: str) -> str:
    """An expression as Prometheus sees it: Grafana's variables are replaced."""
    return expression.replace("$__rate_interval", "5m").replace("$namespace", ".*")


def grouped_labels(expression: str) -> set[str]:
    """The labels in by (...) and on (...)."""
    return {label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(",")}


@pytest.mark.parametrize("expression", alert_expressions() + dashboard_expressions())
def test_an_expression_parses_and_names_what_is_exported(expression, exported):
    found = list(selectors(promql_parser.parse(plain(expression))))
    assert found
    known = exported.labels | OPTIONAL
    used: set[str] = set()
    for selector in found:
        assert selector.name in known, f"{selector.name} is not exported"
        labels = known[selector.name] | TARGET_LABELS
        used |= labels
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
            if (selector.name, matcher.name) in exported.values and matcher.name != "namespace":
                for value in matcher.value.split("|"):
                    assert value in exported.values[selector.name, matcher.name], f"{matcher.name}={value}"
    assert grouped_labels(expression) <= used


@pytest.mark.parametrize("expression", alert_expressions() + dashboard_expressions())
def test_both_sides_of_every_operator_can_match(expression, exported):
    labels = {name: found | TARGET_LABELS for name, found in (exported.labels | OPTIONAL).items()}
    assert vector(promql_parser.parse(plain(expression)), labels) is not None


@pytest.mark.parametrize(
    "expression",
    [
        'a{result="error"} > 0 and a{result="success"} == 0',
        "sum by (namespace) (a) / a",
        "sum by (namespace, uri) (b) / sum by (namespace) (b)",
        "sum by (result) (b)",
    ],
)
def test_sides_that_never_match_are_found(expression):
    with pytest.raises(AssertionError):
        vector(promql_parser.parse(expression), {"a": {"namespace", "result"}, "b": {"namespace", "uri"}})


def test_the_optional_metrics_are_families_too():
    assert {name.removeprefix("extauthz_").removesuffix("_total") for name in OPTIONAL} <= {f.name for f in FAMILIES}


def test_every_alert_says_what_it_means_and_what_to_do():
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)
    readme = (DEPLOY / "README.md").read_text()
    for alert in ALERTS:
        assert set(alert) <= {"alert", "expr", "for", "labels", "annotations"}
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert set(alert["annotations"]) == {"summary", "description"}
        assert f"`{alert['alert']}`" in readme
        for used in re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])):
            assert used in alert["expr"] or used in TARGET_LABELS | {"uri"}


@pytest.mark.parametrize(
    ("alert", "seen"),
    [
        ("ExtauthzKeySetMissing", {"extauthz_jwks_keys"}),
        ("ExtauthzKeySetStale", {"extauthz_jwks_age_seconds"}),
        ("ExtauthzReloadFailed", {"extauthz_policy_last_reload_successful"}),
        ("ExtauthzDenialsJump", {"extauthz_decisions_total"}),
        ("ExtauthzErrors", {"extauthz_check_errors_total", "extauthz_grpc_calls_total"}),
        ("ExtauthzSlow", {"extauthz_check_duration_seconds_bucket", "extauthz_check_duration_seconds_count"}),
    ],
)
def test_an_alert_looks_at_what_it_is_about(alert, seen):
    (expression,) = (rule["expr"] for rule in ALERTS if rule["alert"] == alert)
    assert {selector.name for selector in selectors(promql_parser.parse(expression))} == seen


def test_the_stale_key_set_alert_follows_the_refresh_interval():
    from extauthz.authn.fetch.options import FetchOptions

    (expression,) = (rule["expr"] for rule in ALERTS if rule["alert"] == "ExtauthzKeySetStale")
    assert float(expression.split(">")[1]) == 3 * FetchOptions().refresh


def test_panels_have_places_of_their_own_and_a_unit():
    places = [tuple(panel["gridPos"][edge] for edge in "xywh") for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD["panels"])))
    assert used == variables
    for panel in DASHBOARD["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_the_autoscaler_and_the_adapter_name_an_exported_metric(exported):
    scaler = by_name(build(DEPLOY / "kubernetes" / "deployment"))["HorizontalPodAutoscaler/extauthz"]
    (wanted,) = (metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods")
    (rule,) = documents(MONITORING / "adapter-rules.yaml")[0]["rules"]["custom"]
    assert wanted in exported.labels
    assert rule["name"]["as"] == wanted
    assert re.search(rule["name"]["matches"], wanted)
    assert promql_parser.parse(rule["seriesQuery"]).name == wanted
    query = rule["metricsQuery"].replace("<<.Series>>", wanted).replace("<<.GroupBy>>", "pod")
    promql_parser.parse(query.replace("<<.LabelMatchers>>", 'namespace="a"'))


def test_the_metrics_of_the_documentation_are_exported(exported):
    text = (DEPLOY / "README.md").read_text() + (Path(ROOT) / "docs" / "operating.md").read_text()
    for name in set(re.findall(r"`(extauthz_[a-z_]+[a-z])(?:[`{])", text)):
        assert name in exported.labels or f"{name}_bucket" in exported.labels or name in OPTIONAL, name
