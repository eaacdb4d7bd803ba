"""The CheckRequests that we build ourselves are those that the real Envoy sends."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from extauthz.checkapi.build import Connection, check_request
from extauthz.envoy_http import JOINED_HEADERS, METHODS, REMOVED_HEADERS
from extauthz.mesh.verify.harness import run_harness
from extauthz.mesh.verify.listeners import recording_listener
from extauthz.mesh.verify.probe import Probe
from extauthz.protos.external_auth_pb2 import CheckRequest

pytestmark = pytest.mark.envoy

# An upgrade is answered before the filters, and TE is only ever sent once.
NAMES = sorted((JOINED_HEADERS | REMOVED_HEADERS | {"cookie", "x-a", "X-B", "x_c", "forwarded"}) - {"upgrade"})
VALUES = (
    "", "a", "a,b", " x ", "close", "http", "HTTPS", "\xe9\xff", "gzip", "http://a/b", "http://a b", "a\tb", '"q"',
    "x-a",
)  # fmt: skip
TARGETS = (
    "/", "/a?b", "/a%20b", "/%2e%2e/x", "//x", "/a//b/../c", "/\x80", "*", "http://h.ex/x?y", "https://h", "/a\\b",
    "/a;b",
    "/%", "/%zz", "/a?%00", "/a%00", "/?#x", "x", "/..;/x", "/a/..;x/b", "/a/.", "/a/..", "/..", "/%2E%2E/", "/a%2f",
    "/a?/../b", '/a"<>^`{}|', "http://h.ex/..", "/a/%2e%2e;x/b", "/%7Ea",
)  # fmt: skip


def draw(rng: random.Random) -> Probe:
    headers = [(rng.choice(NAMES), rng.choice(VALUES)) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    if headers and rng.random() < 0.3:
        headers.append((headers[0][0], rng.choice(VALUES)))
    if rng.random() < 0.2:
        headers.append(("te", rng.choice(("", "trailers", "gzip"))))
    return Probe(
        method=rng.choice((*sorted(METHODS - {"CONNECT"}), "get", "FOO")) if rng.random() < 0.3 else "GET",
        target=rng.choice(TARGETS) if rng.random() < 0.5 else "/x?y",
        # Without a forwarded scheme that can be told there is no route, and nobody is asked.
        headers=tuple((name, value) for name, value in headers if name != "x-forwarded-proto" or value),
        host=rng.choice(("httpbin.foo:8000", "A.b", "", "[::1]:80")),
        server_name="a.b" if rng.random() < 0.1 else "",
    )


def built(probe: Probe) -> bytes | None:
    return check_request(
        probe.method,
        probe.target,
        probe.headers,
        host=probe.host or "",
        connection=Connection(
            destination_port=probe.port, server_name=probe.server_name, tls=probe.tls, destination_address="127.0.0.1"
        ),
    )


def content(message: bytes | None) -> Any:
    """What policies can look at, in a form that compares and prints."""
    if message is None:
        return None
    attributes = CheckRequest.FromString(message).attributes
    lines: dict[str, list[bytes]] = {}
    for entry in attributes.request.http.header_map.headers:
        if entry.key not in ("x-request-id", "content-length"):
            lines.setdefault(entry.key, []).append(entry.raw_value)
    http = attributes.request.http
    destination = attributes.destination.address.socket_address
    return {
        "request": (http.method, http.path, http.host, http.scheme),
        "addresses": (attributes.source.address.socket_address.address, destination.address, destination.port_value),
        "server name": attributes.tls_session.sni,
        "lines": lines,
    }


def test_requests_that_we_describe_ourselves_look_as_envoy_describes_them() -> None:
    async def run() -> None:
        rng = random.Random(5)
        async with run_harness() as harness:
            await harness.load([recording_listener("plain", [], tls=harness.certificates.server_socket())])
            for _ in range(1500):
                probe = draw(rng)
                observation = await harness.ask("plain", probe)
                assert content(built(probe)) == content(observation.check), probe

    asyncio.run(run())
