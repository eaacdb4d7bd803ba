"""Bootstraps, addresses, and their form as text."""

from __future__ import annotations

import json

import pytest
import yaml

from extauthz.errors import UsageError
from extauthz.istio.resources import Resources
from extauthz.istio.workload import Workload
from extauthz.mesh.bootstrap import Addresses, Mode, as_document, bootstrap, render
from extauthz.mesh.envoy import explain_log
from extauthz.mesh.istio_wiring import custom_policy, mesh_config, service_of
from extauthz.mesh.pieces import address, cluster
from extauthz.mesh.yaml_text import yaml_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", {"socketAddress": {"address": "127.0.0.1", "portValue": 80}}),
        ("[::1]:80", {"socketAddress": {"address": "::1", "portValue": 80}}),
        ("host.example:0", {"socketAddress": {"address": "host.example", "portValue": 0}}),
        ("unix:/run/x.sock", {"pipe": {"path": "/run/x.sock"}}),
    ],
)
def test_addresses_are_read(text: str, expected: dict[str, object]) -> None:
    assert address(text).to_dict() == expected


@pytest.mark.parametrize("text", ["", "x", "x:", ":80", "x:y", "x:65536", "unix:"])
def test_what_is_no_address_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="write"):
        address(text)


def test_a_cluster_of_ours_has_an_endpoint_for_each_worker_and_is_health_checked() -> None:
    document = cluster("us", ["127.0.0.1:1", "127.0.0.1:2"], grpc=True).to_dict()
    assert len(document["loadAssignment"]["endpoints"][0]["lbEndpoints"]) == 2
    assert document["type"] == "STATIC"
    (check,) = document["healthChecks"]
    assert check["interval"] == check["noTrafficInterval"]
    assert document["circuitBreakers"]["thresholds"][0]["maxRetries"] == 1000


def test_host_names_are_resolved() -> None:
    assert cluster("us", ["authz.example:1"], grpc=True).to_dict()["type"] == "STRICT_DNS"


def test_modes_differ_in_who_is_asked() -> None:
    filters = {}
    for mode in Mode:
        document = as_document(bootstrap(Resources(), mode))
        manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        filters[mode] = [entry["name"] for entry in manager["http_filters"]]
    assert filters[Mode.BUILTIN] == ["envoy.filters.http.router"]
    assert (
        filters[Mode.EXT_AUTHZ] == filters[Mode.BOTH] == ["envoy.filters.http.ext_authz", "envoy.filters.http.router"]
    )


def test_both_forms_say_the_same() -> None:
    made = bootstrap(Resources(), Mode.EXT_AUTHZ, Addresses(authz=("unix:/run/a", "unix:/run/b")))
    assert yaml.safe_load(render(made, "yaml")) == json.loads(render(made, "json"))


@pytest.mark.parametrize(
    "text", ["y", "N", "yes", "1e3", "0x1", "1_000", ".5", "-", "~", "null", "12:30:45", "2001-01-01"]
)
def test_texts_that_some_reader_takes_for_something_else_are_quoted(text: str) -> None:
    assert yaml_text({"key": text}) == f'key: "{text}"\n'


def test_ordinary_texts_are_not_quoted() -> None:
    assert yaml_text({"key": "value"}, {"other": ["a", "b"]}) == "key: value\n---\nother:\n- a\n- b\n"


def test_istio_is_told_the_provider_and_sends_everything_of_the_workload() -> None:
    (provider,) = mesh_config("us", "authz.ns.svc", 9191, 0.25)["extensionProviders"]
    assert provider["envoyExtAuthzGrpc"] == {
        "service": "authz.ns.svc",
        "port": 9191,
        "timeout": "0.25s",
        "failOpen": False,
        "statusOnError": "503",
    }
    policy = custom_policy("us", Workload.parse("shop/app=web"), "istio-system")
    assert policy["metadata"]["namespace"] == "shop"
    assert policy["spec"] == {
        "selector": {"matchLabels": {"app": "web"}},
        "action": "CUSTOM",
        "provider": {"name": "us"},
        "rules": [{}],
    }
    assert custom_policy("us", None, "root")["metadata"] == {"name": "ask-us", "namespace": "root"}


def test_a_mesh_cannot_be_told_of_a_socket() -> None:
    assert service_of("authz.ns.svc:9191") == ("authz.ns.svc", 9191)
    with pytest.raises(UsageError):
        service_of("unix:/run/x")


def test_the_reason_is_found_in_envoys_log() -> None:
    log = (
        "[2026-01-01 00:00:00.000][1][warning][main] [source/server/server.cc:1] no limit\n"
        "[2026-01-01 00:00:00.001][1][critical][main] [source/server/server.cc:2] error `listener x: no\n"
        "address` initializing config '/tmp/x'\n"
    )
    assert explain_log(log) == "listener x: no\naddress"
    assert explain_log("[2026-01-01 00:00:00.001][1][error][main] [a.cc:2] out of luck\n") == "out of luck"
    assert explain_log("segmentation fault") == "segmentation fault"
    assert explain_log("") == ""
