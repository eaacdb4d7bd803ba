"""The story that this project was born from, run end to end: upstream, real Envoy, our server, requests and answers.

A gateway demands a token on every path but one. RequestAuthentication alone lets a request without a token pass; a DENY
policy with a double negation (no request principal, and not the excluded path) turns "no token" into 403 elsewhere.
"""

from __future__ import annotations

import http.client
import http.server
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from extauthz.broken_tokens import broken_token
from extauthz.istio.load import load
from extauthz.mesh.bootstrap import Addresses, Mode, as_document, bootstrap
from extauthz.mesh.envoy import run_envoy
from extauthz.mesh.service import run_service
from extauthz.minting import SigningKey, key_set

ISSUER = "testing@secure.istio.io"
WORKLOAD = "istio-system/app=istio-ingressgateway"
PATHS = ("/productpage", "/api/v1/products/0", "/api/v1/products/1")

REQUEST_AUTHENTICATION = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: jwt-example
  namespace: istio-system
spec:
  selector:
    matchLabels:
      app: istio-ingressgateway
  jwtRules:
  - issuer: testing@secure.istio.io
    jwks: '{jwks}'
"""

AUTHORIZATION_POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: test-exclude
  namespace: istio-system
spec:
  selector:
    matchLabels:
      app: istio-ingressgateway
  action: DENY
  rules:
  - from:
    - source:
        notRequestPrincipals: ["*"]
    to:
    - operation:
        notPaths: ["/productpage"]
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the story: under which policies, with which token, and the status that it must get."""

    policies: str
    token_kind: str
    token: str
    path: str
    expected: int


@dataclass(frozen=True, slots=True)
class Story:
    """Policies by name (as YAML) and the requests to send under each, in order."""

    policies: dict[str, str]
    steps: tuple[Step, ...]


def tell() -> Story:
    """The story with a new key and new tokens."""
    key = SigningKey.generate("RS256", "demo")
    claims = {"iss": ISSUER, "sub": ISSUER, "exp": int(time.time()) + 3600}
    tokens = {"none": "", "valid": key.token(claims), "bad": broken_token("signature", key, claims)}
    authentication = REQUEST_AUTHENTICATION.format(jwks=json.dumps(key_set(key)))
    both, alone = "RequestAuthentication + DENY", "RequestAuthentication alone"
    policies = {both: f"{authentication}---\n{AUTHORIZATION_POLICY}", alone: authentication}
    answers = {
        (both, "none"): (200, 403, 403),
        (both, "valid"): (200, 200, 200),
        (both, "bad"): (401, 401, 401),
        (alone, "none"): (200, 200, 200),
        (alone, "valid"): (200, 200, 200),
        (alone, "bad"): (401, 401, 401),
    }
    steps = tuple(
        Step(name, kind, tokens[kind], path, status)
        for (name, kind), statuses in answers.items()
        for path, status in zip(PATHS, statuses, strict=True)
    )
    return Story(policies, steps)


def ask(port: int, step: Step) -> int:
    """Send one request of the story to the Envoy on a local port and return the status of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"authorization": f"Bearer {step.token}"} if step.token else {}
    try:
        connection.request("GET", step.path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Stage:
    """One set of policies in force: a real Envoy on local port `port` that asks our server on `authz`."""

    port: int
    authz: str


@contextmanager
def stage(policies: str, *, envoy: str = "") -> Iterator[Stage]:
    """Put policies (YAML) in force: upstream, `extauthz serve`, Envoy. Ends all three when the block is left."""
    with tempfile.TemporaryDirectory(prefix="extauthz-demo-") as directory, _upstream() as upstream:
        file = Path(directory, "policies.yaml")
        file.write_text(policies)
        arguments = [
            "serve",
            "--policy",
            str(file),
            "--workload",
            WORKLOAD,
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
        ]
        with run_service([*arguments, "--drain", "0"]) as service:
            addresses = Addresses("127.0.0.1:0", upstream, service.addresses, "127.0.0.1:0")
            document = as_document(bootstrap(load([str(file)]).resources, Mode.EXT_AUTHZ, addresses))
            with run_envoy(document, binary=envoy) as proxy:
                _, port = proxy.listeners()["inbound"].addresses[0]
                yield Stage(port, service.addresses[0])


class _Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"hello from the upstream\n"
        self.send_response(http.HTTPStatus.OK)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing: the demo's own table is the output."""


@contextmanager
def _upstream() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ok)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
