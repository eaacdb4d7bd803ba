"""Requests through a real Envoy: no filter, the built-in filters, and ext_authz to an empty service and to ours.

One Envoy worker on core 0, wrk on core 1; the authorization service beside wrk ("other core") or beside Envoy.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import wrk
from benchmarks.measure import LOAD_CORE, SERVER_CORE, Findings, interleaved, pinned, started
from benchmarks.servers import Running, process_tree, service, unix_socket
from benchmarks.story import Measured
from benchmarks.transport import GRPCIO, NATIVE, TCP
from extauthz.istio.load import load
from extauthz.istio.resources import Resources
from extauthz.mesh.bootstrap import Addresses, Mode, as_document, bootstrap
from extauthz.mesh.demo import WORKLOAD
from extauthz.mesh.envoy import run_envoy

ENVOY_CORE, OTHER_CORE = SERVER_CORE, LOAD_CORE
PATH = "/api/v1/products/0"
JWT_CACHE_ENTRIES = 10_000

SECONDS = 1
"""How long wrk runs in a round."""

ROUNDS = {1: 11, 16: 5, 64: 9}
"""How many rounds with so many connections; more where the targets are, as a shared machine changes by the second."""


@dataclass(frozen=True)
class Proxy:
    """An Envoy under measurement; `pids` are its processes and those of whom it asks, by name."""

    url: str
    pids: Mapping[str, tuple[int, ...]]


Start = Callable[[], AbstractContextManager[Proxy]]


def run(*, quick: bool) -> dict[str, Any]:
    """Requests/s at 16 and 64 connections and latency at one, for each way to authorize, in interleaved rounds."""
    story = Measured.make()
    authorization = f"Bearer {story.token()}"
    figures: dict[str, Any] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory, ExitStack() as stack:
        file = Path(directory, "policies.yaml")
        file.write_text(story.policies)
        starting = Findings()
        ways = _proxies(str(file), directory, load([str(file)]).resources)
        proxies = started(stack, ways, starting)
        for connections, rounds in ROUNDS.items():
            if quick and connections == 16:
                continue
            findings = Findings(failures=dict(starting.failures))
            shape = {"core": OTHER_CORE, "seconds": SECONDS, "connections": connections}
            sides = {
                name: partial(wrk, proxy.url, authorization, pids=proxy.pids, **shape)
                for name, proxy in proxies.items()
            }
            interleaved(sides, 1 if quick else rounds, findings)
            figures[str(connections)] = findings.summary()
            failures |= findings.failures
    return {"figures": figures, "failures": failures}


def _proxies(policies: str, directory: str, resources: Resources) -> Mapping[str, Start]:
    serve = partial(service, "serve", "--policy", policies, "--workload", WORKLOAD)
    null = partial(service, "null", *NATIVE)
    socket = partial(unix_socket, directory)
    builtin = as_document(bootstrap(resources, Mode.BUILTIN, _addresses(())))
    asking = partial(_asking, resources)
    other, beside = {"core": OTHER_CORE}, {"core": ENVOY_CORE}
    return {
        "no filter": partial(_proxy, _without_filters(builtin)),
        "built-in": partial(_proxy, builtin),
        "built-in, JWT cache": partial(_proxy, _with_jwt_cache(builtin)),
        "null, native, Unix socket": partial(asking, partial(null, listen=socket("null"), **other)),
        "null, native, Unix socket, Envoy's core": partial(asking, partial(null, listen=socket("null-0"), **beside)),
        "null, native, TCP": partial(asking, partial(null, listen=TCP, **other)),
        "extauthz, native, Unix socket": partial(asking, partial(serve, *NATIVE, listen=socket("native"), **other)),
        "extauthz, native, Unix socket, Envoy's core": partial(
            asking, partial(serve, *NATIVE, listen=socket("native-0"), **beside)
        ),
        "extauthz, native, TCP": partial(asking, partial(serve, *NATIVE, listen=TCP, **other)),
        "extauthz, grpcio, Unix socket": partial(asking, partial(serve, *GRPCIO, listen=socket("grpcio"), **other)),
        "extauthz, grpcio, Unix socket, Envoy's core": partial(
            asking, partial(serve, *GRPCIO, listen=socket("grpcio-0"), **beside)
        ),
        "extauthz, grpcio, TCP": partial(asking, partial(serve, *GRPCIO, listen=TCP, **other)),
    }


def _addresses(authz: tuple[str, ...]) -> Addresses:
    return Addresses("127.0.0.1:0", "127.0.0.1:1", authz, "127.0.0.1:0")


@contextmanager
def _asking(resources: Resources, server: Callable[[], AbstractContextManager[Running]]) -> Iterator[Proxy]:
    with server() as running:
        document = as_document(bootstrap(resources, Mode.EXT_AUTHZ, _addresses(running.addresses)))
        with _proxy(document) as proxy:
            yield Proxy(proxy.url, {**proxy.pids, "authorization": running.pids})


@contextmanager
def _proxy(document: dict[str, Any]) -> Iterator[Proxy]:
    with run_envoy(_answering_itself(document), prefix=pinned(ENVOY_CORE, [])) as envoy:
        host, port = envoy.listeners()["inbound"].addresses[0]
        yield Proxy(f"http://{host}:{port}{PATH}", {"envoy": process_tree(envoy.process.pid)})


def _manager(document: dict[str, Any]) -> dict[str, Any]:
    chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
    manager: dict[str, Any] = chain["filters"][0]["typed_config"]
    return manager


def _answering_itself(document: dict[str, Any]) -> dict[str, Any]:
    """The bootstrap with an answer of Envoy's own in place of an upstream, and without an access log."""
    document = copy.deepcopy(document)
    manager = _manager(document)
    manager.pop("access_log", None)
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("route", None)
            route["direct_response"] = {"status": 200, "body": {"inline_string": "ok"}}
    return document


def _without_filters(document: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    manager = _manager(document)
    manager["http_filters"] = manager["http_filters"][-1:]
    return document


def _with_jwt_cache(document: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    for http_filter in _manager(document)["http_filters"]:
        for provider in http_filter["typed_config"].get("providers", {}).values():
            provider["jwt_cache_config"] = {"jwt_cache_size": JWT_CACHE_ENTRIES}
    return document
