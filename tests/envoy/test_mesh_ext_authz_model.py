"""The model of what Envoy's ext_authz filter does with an answer does what the filter does."""

from __future__ import annotations

import asyncio

import pytest

from extauthz.istio.resources import Resources
from extauthz.mesh.filters import EXT_AUTHZ_FILTER, ExtAuthzSettings, ext_authz_filters
from extauthz.mesh.pieces import cluster
from extauthz.mesh.verify.ext_authz import HEADER_BYTES_LIMIT, effect
from extauthz.mesh.verify.harness import Harness, run_harness
from extauthz.mesh.verify.listeners import recording_listener
from extauthz.mesh.verify.outcome import Difference, differences, observed
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.recorder import Recorder, Recordings
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse

pytestmark = pytest.mark.envoy


def ok(*headers: tuple[str, str], remove: tuple[str, ...] = (), append: tuple[str, ...] = ()) -> CheckResponse:
    response = CheckResponse()
    response.ok_response.headers_to_remove.extend(remove)
    for name, value in headers:
        option = response.ok_response.headers.add()
        option.header.key, option.header.value = name, value
        option.append.value = name in append
    return response


def denied(status: int, body: str, *headers: tuple[str, str], code: int = 7) -> CheckResponse:
    response = CheckResponse()
    response.status.code = code
    response.denied_response.status.code = status
    response.denied_response.body = body
    for name, value in headers:
        option = response.denied_response.headers.add()
        option.header.key, option.header.value = name, value
    return response


def bare(code: int) -> CheckResponse:
    response = CheckResponse()
    response.status.code = code
    return response


PROBE = Probe(target="/p?a=%41&b=x%20y", headers=(("x-sub", "s1"), ("x-sub", "s2"), ("cookie", "a"), ("cookie", "b")))
GRPC = Probe("POST", "/a.B/C", (("content-type", "application/grpc"),))

# Everything but the long headers and the pseudo headers' values is measured by letting Envoy answer.
ROOM = HEADER_BYTES_LIMIT - 1000

CASES = {
    "nothing": (PROBE, ok()),
    "a header is replaced": (PROBE, ok(("x-sub", "new"))),
    "set and removed": (PROBE, ok(("x-sub", "new"), remove=("x-sub",))),
    "set twice": (PROBE, ok(("x-sub", "a"), ("x-sub", "b"))),
    "appended": (PROBE, ok(("x-sub", "a"), append=("x-sub",))),
    "appended to nothing": (PROBE, ok(("x-new", "a"), append=("x-new",))),
    "an empty value": (PROBE, ok(("x-sub", ""))),
    "a value with blanks": (PROBE, ok(("x-sub", " a "))),
    "a value in UTF-8": (PROBE, ok(("x-sub", "Zo\u00eb"))),
    "a line feed": (PROBE, ok(("x-sub", "a\nb"))),
    "a NUL": (PROBE, ok(("x-sub", "a\0b"))),
    "a tab": (PROBE, ok(("x-sub", "a\tb"))),
    "a DEL": (PROBE, ok(("x-sub", "a\x7fb"))),
    "a line feed for gRPC": (GRPC, ok(("x-sub", "a\nb"))),
    "another path": (PROBE, ok((":path", "/other?a=A"))),
    "a path with a blank": (PROBE, ok((":path", "/p?a=x y"))),
    "a path in UTF-8": (PROBE, ok((":path", "/p?a=\u00eb"))),
    "a path with a line feed": (PROBE, ok((":path", "/p?a=\n"))),
    "the host": (PROBE, ok(("host", "other"))),
    "the authority": (PROBE, ok((":authority", "other"))),
    "host and path removed": (PROBE, ok(remove=("host", ":path", ":authority", ":method"))),
    "another method": (PROBE, ok((":method", "PUT"))),
    "another scheme": (PROBE, ok((":scheme", "https"))),
    "host appended": (PROBE, ok(("host", "other"), append=("host",))),
    "all cookies": (PROBE, ok(remove=("cookie",))),
    "another case": (PROBE, ok(("X-Sub", "new"), remove=("COOKIE",))),
    "denied": (PROBE, denied(401, "no", ("www-authenticate", "a"), ("content-type", "text/plain"))),
    "denied twice": (PROBE, denied(401, "no", ("www-authenticate", "a"), ("www-authenticate", "b"))),
    "denied without a body": (PROBE, denied(403, "")),
    "denied without a status": (PROBE, denied(0, "no")),
    "denied with 200": (PROBE, denied(200, "no")),
    "denied HEAD": (Probe("HEAD"), denied(403, "no")),
    "denied gRPC": (GRPC, denied(401, "n\u00f6: 100%", ("www-authenticate", "a"))),
    "denied gRPC by audience": (GRPC, denied(403, "no")),
    "denied gRPC HEAD": (Probe("HEAD", "/", GRPC.headers), denied(403, "no")),
    "a status without an answer": (PROBE, bare(16)),
    "denied with status 0": (PROBE, denied(401, "no", code=0)),
    "just small enough": (PROBE, ok(("x-a", "a" * (ROOM - 200)))),
    "too long": (PROBE, ok(("x-a", "a" * HEADER_BYTES_LIMIT))),
    "too long for a moment": (
        Probe(headers=(("x-old", "o" * 40_000),)),
        ok(("x-new", "n" * 40_000), remove=("x-old",)),
    ),
    "emptied first": (
        Probe(headers=(("x-old", "o" * 40_000),)),
        ok(("x-old", ""), ("x-new", "n" * 40_000), remove=("x-old",)),
    ),
    "many headers": (PROBE, ok(*((f"x-{index}", "v") for index in range(85)))),
    "too many headers": (PROBE, ok(*((f"x-{index}", "v") for index in range(110)))),
}


async def compare(harness: Harness, name: str, probe: Probe, response: CheckResponse) -> list[Difference]:
    observation = await harness.ask(name, probe)
    assert observation.check is not None
    seen = observed(observation)
    expected = effect(CheckRequest.FromString(observation.check), response)
    return [difference for difference in differences(seen, expected) if difference.what != "reason"]


def test_every_kind_of_answer_has_the_effect_that_is_modelled() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        servers, clusters, listeners = [], [], []
        for number, (_, response) in enumerate(CASES.values()):
            answer = response.SerializeToString()
            server = await loop.create_server(lambda answer=answer: Recorder(Recordings(), answer), "127.0.0.1", 0)
            servers.append(server)
            one = cluster(f"stub-{number}", [f"127.0.0.1:{server.sockets[0].getsockname()[1]}"], grpc=True)
            one.health_checks = []
            clusters.append(one)
            filters = ext_authz_filters(Resources(), settings=ExtAuthzSettings(f"stub-{number}", timeout=60))
            filters[0].name = f"{EXT_AUTHZ_FILTER}.stub"
            listeners.append(recording_listener(f"stub-{number}", filters))
        async with run_harness(clusters=clusters) as harness:
            assert await harness.load(listeners) == {}
            found = {
                title: await compare(harness, f"stub-{number}", probe, response)
                for number, (title, (probe, response)) in enumerate(CASES.items())
            }
        assert {title: wrong for title, wrong in found.items() if wrong} == {}
        for server in servers:
            server.close()

    asyncio.run(run())
