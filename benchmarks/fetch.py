"""Latency of Check calls while key-set fetches fail beside them, against the same with key sets that are there.

Twelve rules with a remote key set each: in `failing` each of them fails in a way of its own and is asked for again
every few seconds (with back-off); in `quiet` all were fetched at the start. 500 calls a second bring a token of a
thirteenth rule whose keys are in the policy.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from benchmarks.key_servers import failing_urls
from benchmarks.load import LoadFailed
from benchmarks.loadtester import figures, loadtest
from benchmarks.measure import LOAD_CORE, SERVER_CORE, interleaved, pinned
from benchmarks.servers import free_port, service, unix_socket
from extauthz.mesh.service import run_service
from extauthz.minting import SigningKey, key_set

RATE = 500
REFRESH = {"quiet": "1200", "failing": "5"}
KEY_SERVER = (sys.executable, "-m", "benchmarks.key_servers")

RULES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
"""
POLICY = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tokens-only, namespace: shop}
spec:
  action: DENY
  rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]
"""


def run(*, quick: bool) -> dict[str, Any]:
    """Latency percentiles on each transport, from when calls were due and from when they were sent."""
    seconds, rounds = (1.0, 1) if quick else (5.0, 3)
    key = SigningKey.generate("ES256", "k")
    with (
        tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory,
        run_service([], prefix=pinned(LOAD_CORE, []), program=KEY_SERVER) as keys,
    ):
        place, address = Path(directory), keys.addresses[0]
        (place / "tokens").write_text(key.token({"iss": "issuer", "sub": "someone", "exp": 4_102_444_800}) + "\n")
        failing = failing_urls(address)
        urls = {"quiet": [f"http://{address}/good?{number}" for number in range(len(failing))], "failing": failing}
        for name, listed in urls.items():
            (place / f"{name}.yaml").write_text(_policies(key, listed))
        sides = {
            f"{transport}, {name}": partial(_measured, place, transport, name, seconds)
            for transport in ("native", "grpcio")
            for name in urls
        }
        findings = interleaved(sides, rounds)
    return {"figures": findings.summary(), "key_sets": len(failing), "rate": RATE, "failures": findings.failures}


def _policies(key: SigningKey, urls: list[str]) -> str:
    rules = [f"  - {{issuer: issuer, jwks: '{json.dumps(key_set(key))}'}}\n"]
    rules += [f"  - {{issuer: 'i{number}', jwksUri: '{url}', timeout: 1s}}\n" for number, url in enumerate(urls)]
    return RULES + "".join(rules) + POLICY


def _measured(place: Path, transport: str, name: str, seconds: float) -> Mapping[str, float]:
    listen, admin = unix_socket(str(place), f"{transport}-{name}"), f"127.0.0.1:{free_port()}"
    arguments = ("--policy", str(place / f"{name}.yaml"), "--transport", transport)
    options = ("--jwks-refresh", REFRESH[name], "--admin", admin)
    with service("serve", *arguments, *options, listen=listen, core=SERVER_CORE):
        (step,) = loadtest(
            "--target", listen, "--tokens", str(place / "tokens"), rates=[RATE], seconds=seconds, warmup=0.5
        )
        states = _key_sets(admin)
    if {state["available"] for state in states} != {name == "quiet"}:
        raise LoadFailed(f"key sets are not as they should be: {states}")
    if step["calls"]["allowed"] != step["calls"]["asked"]:
        raise LoadFailed(f"not every call was allowed: {step['calls']}")
    return {**figures(step), "fetches": sum(sum(state["results"].values()) for state in states)}


def _key_sets(admin: str) -> list[Mapping[str, Any]]:
    with build_opener(ProxyHandler({})).open(f"http://{admin}/policies", timeout=10) as page:
        found: list[Mapping[str, Any]] = json.load(page)["key_sets"]
    return found
