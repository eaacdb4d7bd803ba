"""Running the real Envoy, and what it makes of the configurations that we write."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.istio.resources import Resources
from extauthz.mesh.bootstrap import Mode, as_document, bootstrap, render
from extauthz.mesh.envoy import ConfigRejected, find_envoy, run_envoy, validate
from extauthz.mesh.filters import ExtAuthzSettings, MeshOptions, builtin_filters, ext_authz_filters
from extauthz.mesh.pieces import cluster
from extauthz.mesh.verify.harness import run_harness
from extauthz.mesh.verify.listeners import served_listener
from extauthz.mesh.verify.outcome import observed
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.recorder import Recorder, Recordings
from extauthz.protos.external_auth_pb2 import CheckResponse

pytestmark = pytest.mark.envoy

ADMIN = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}

POLICIES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: a, namespace: foo}
spec:
  jwtRules:
  - issuer: "y"
    jwksUri: https://a/keys
    audiences: ["1e3", "no"]
    fromHeaders: [{name: x-a, prefix: "Tok "}]
    fromParams: [t]
    fromCookies: [c]
    outputPayloadToHeader: x-pay
    outputClaimToHeaders: [{header: x-sub, claim: sub}]
  - {issuer: https://b, jwksUri: https://b/keys, forwardOriginalToken: true}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: custom, namespace: foo}
spec: {action: CUSTOM, provider: {name: ours}, rules: [{to: [{operation: {paths: [/c]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: dry, namespace: foo, annotations: {istio.io/dry-run: "true"}}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: full, namespace: foo}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: ["*/ns/a/sa/b"], namespaces: ["a*"], remoteIpBlocks: ["::1/64"]}}]
    to: [{operation: {hosts: ["*.x"], methods: [GET], paths: ["/{*}/a/{**}", "y"], ports: ["80"]}}]
    when:
    - {key: "request.auth.claims[a][b.c]", values: ["true", "0x10"]}
    - {key: "experimental.envoy.filters.http.x[k]", values: ["[v]"]}
    - {key: connection.sni, notValues: ["n"]}
"""


def resources(text: str = POLICIES) -> Resources:
    return load(["-"], stdin=io.StringIO(text)).resources


def test_envoy_starts_answers_and_ends() -> None:
    with run_envoy(ADMIN) as envoy:
        assert envoy.running()
        assert envoy.get("/ready").strip() == "LIVE"
        assert envoy.listeners() == {}
        assert envoy.counter("server.live") == 1
        assert envoy.counter("no.such.thing") == 0
        process, directory = envoy.process, envoy.directory
    assert process.poll() is not None
    assert not directory.exists()


def test_envoy_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import time\nfrom extauthz.mesh.envoy import run_envoy\n"
        f"with run_envoy({ADMIN!r}) as envoy:\n    print(*envoy.admin, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    host, port = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()

    async def gone() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return True
        writer.close()
        return False

    deadline = time.monotonic() + 60
    while not asyncio.run(gone()):
        assert time.monotonic() < deadline, "Envoy outlives its parent"
        time.sleep(0.05)


@pytest.mark.parametrize("check", [validate, lambda document: run_envoy(document).__enter__()])
def test_a_rejected_configuration_is_explained_in_envoys_words(check: object) -> None:
    document = {**ADMIN, "static_resources": {"listeners": [{"name": "x"}]}}
    with pytest.raises(ConfigRejected) as raised:
        check(document)  # type: ignore[operator]
    assert raised.value.reason == "error adding listener named 'x': address is necessary"


def test_an_envoy_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="not an executable"):
        find_envoy("/no/such/envoy")
    monkeypatch.setenv("ENVOY", "/no/such/envoy")
    with pytest.raises(UsageError, match="ENVOY"):
        find_envoy()


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("provider", ["", "ours"])
def test_envoy_accepts_every_bootstrap_in_both_forms(mode: Mode, provider: str, tmp_path: Path) -> None:
    made = bootstrap(resources(), mode, options=MeshOptions("td1", ("td2",), provider))
    validate(as_document(made))
    file = tmp_path / "envoy.yaml"
    file.write_text(render(made, "yaml"))
    done = subprocess.run(
        [find_envoy(), "--mode", "validate", "-c", str(file), "--disable-hot-restart"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["--mode", "builtin"], ["--mode", "both", "--format", "json"]])
def test_the_command_prints_what_envoy_accepts(arguments: list[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICIES)
    done = subprocess.run(
        [sys.executable, "-m", "extauthz", "envoy-config", "--policy", str(policy), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("EXTAUTHZ_")},
    )
    assert done.returncode == 0, done.stderr
    validate(json.loads(done.stdout) if "json" in arguments else yaml.safe_load(done.stdout))


def test_a_listener_that_envoy_rejects_does_not_keep_the_others_from_listening() -> None:
    bad = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a, namespace: foo}\n"
        "spec: {jwtRules: [{issuer: a, jwksUri: https://a/keys}]}"
    )

    async def run() -> None:
        async with run_harness() as harness:
            rejected = await harness.load(
                [
                    served_listener("good", builtin_filters(resources())),
                    served_listener("bad", builtin_filters(resources(bad), None, lambda rule: "junk")),
                ]
            )
            assert rejected == {
                "bad": "Provider 'origins-0' in jwt_authn config has invalid local jwks: Jwks is an invalid JSON"
            }
            assert observed(await harness.ask("good", Probe())).status == 200
            # The same names' successors get ports of their own.
            assert (
                await harness.load(
                    [served_listener("next", []), served_listener("other", builtin_filters(resources()))]
                )
                == {}
            )
            assert observed(await harness.ask("next", Probe(target="/c"))).status == 200
            assert observed(await harness.ask("other", Probe(target="/c"))).status == 403

    asyncio.run(run())


def test_in_shadow_the_built_in_filters_decide_on_the_request_as_it_came() -> None:
    policies = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: foo}\n"
        'spec: {rules: [{when: [{key: "request.headers[x-a]", values: [sent]}]}]}'
    )

    def answer(*, denies: bool) -> CheckResponse:
        response = CheckResponse()
        if denies:
            response.status.code = 7
            response.denied_response.status.code = 403
            return response
        response.ok_response.headers_to_remove.append("x-gone")
        for name, value in (("x-a", "set"), (":path", "/set")):
            option = response.ok_response.headers.add()
            option.header.key, option.header.value = name, value
        return response

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for denies in (False, True):
            message = answer(denies=denies).SerializeToString()
            recordings = Recordings()
            server = await loop.create_server(lambda m=message, r=recordings: Recorder(r, m), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            ours = cluster("ours", [f"127.0.0.1:{port}"], grpc=True)
            ours.health_checks = []
            shadow = ext_authz_filters(Resources(), settings=ExtAuthzSettings("ours", timeout=60, shadow=True))
            async with server, run_harness(clusters=[ours]) as harness:
                chain = [*shadow, *builtin_filters(resources(policies))]
                assert await harness.load([served_listener("both", chain)]) == {}
                seen = observed(
                    await harness.ask("both", Probe(target="/x", headers=(("x-a", "sent"), ("x-gone", "v"))))
                )
                assert seen.upstream is not None
                assert (seen.upstream.path, seen.upstream.header("x-a"), seen.upstream.header("x-gone")) == (
                    "/x",
                    "sent",
                    "v",
                )
                assert observed(await harness.ask("both", Probe())).status == 403

    asyncio.run(run())
