"""The story's policies enforced behind a real Envoy in each way there is, under the same load: one report page.

Run as a program: `python -m extauthz.loadtest.demo DIRECTORY`. Envoy answers requests itself, so that no upstream is
measured; "Envoy alone" is the same without any authorization, which is what the others are held against.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from extauthz.errors import ExtAuthzError
from extauthz.istio.load import load
from extauthz.loadtest import plots, report, report_html, report_json, terminal
from extauthz.loadtest.plan import LoadOptions, TokenOptions, make_plan
from extauthz.loadtest.plots import Series
from extauthz.loadtest.run import Report, run
from extauthz.mesh.bootstrap import Addresses, Mode, as_document, bootstrap
from extauthz.mesh.demo import AUTHORIZATION_POLICY, ISSUER, REQUEST_AUTHENTICATION, WORKLOAD
from extauthz.mesh.envoy import run_envoy
from extauthz.mesh.service import run_service
from extauthz.minting import SigningKey, key_set

TOKENS = 200
MIX = "good=90,expired=5,none=5"
ZIPF = 1.1
PATH = "/api/v1/products/0"

_KID = "demo"
_ALONE = "Envoy alone"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every way at every rate and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write the report")
    parser.add_argument("--rate", default="500,1500,3000", help="as of extauthz loadtest")
    parser.add_argument("--duration", type=float, default=8.0, help="seconds at each rate")
    parser.add_argument("--envoy", default="", help="the Envoy binary to run")
    given = parser.parse_args(arguments)
    try:
        report.check_directory(given.directory)
        reports = run_all(given.rate, given.duration, given.envoy)
    except ExtAuthzError as error:
        sys.exit(f"error: {error}")
    for path in write(reports, given.directory):
        print(f"wrote {path}")


def run_all(rate: str, seconds: float, envoy: str = "") -> dict[str, Report]:
    """The report of each way to authorize, by name; ends early with those that are complete when interrupted."""
    reports: dict[str, Report] = {}
    with TemporaryDirectory(prefix="extauthz-loadtest-") as temporary:
        directory = Path(temporary)
        key = SigningKey.generate("RS256", _KID)
        policies, private = directory / "policies.yaml", directory / "key.pem"
        jwks = json.dumps(key_set(key))
        policies.write_text(f"{REQUEST_AUTHENTICATION.format(jwks=jwks)}---\n{AUTHORIZATION_POLICY}")
        private.write_text(key.private_text())
        tokens = TokenOptions(mint=TOKENS, key=private, kid=_KID, issuer=ISSUER, mix=MIX, zipf=ZIPF)
        for name, start in _ways(directory, policies, envoy).items():
            print(f"--- {name}", flush=True)
            with start() as port:
                options = LoadOptions(
                    url=f"http://127.0.0.1:{port}{PATH}",
                    tokens=tokens,
                    rate=rate,
                    seconds=seconds,
                    # The floor is the same for all of them.
                    calibration=0.0 if reports else 1.0,
                )
                plan = make_plan(options)
                progress = terminal.Progress(plan.target.protocol)
                try:
                    found = run(plan, progress)
                finally:
                    progress.close()
            if found.steps:
                reports[name] = found
            if found.interrupted:
                break
    return reports


def write(reports: Mapping[str, Report], directory: Path) -> list[Path]:
    """One page of all, plots of percentiles for each rate and for all together, the JSON of each; gives the paths."""
    written = [directory / "index.html"]
    written[0].write_text(report_html.page("Authorization behind Envoy", list(reports.items())), encoding="utf-8")
    for name, found in reports.items():
        written.append(directory / f"{name.lower().replace(' ', '-').replace(',', '')}.json")
        written[-1].write_text(json.dumps(report_json.as_document(found), indent=1) + "\n", encoding="utf-8")
    series = [Series(name, found.steps) for name, found in reports.items()]
    for rate in plots.common_rates(series):
        written.append(directory / f"percentiles-{rate:g}.png")
        written[-1].write_bytes(plots.latency_by_percentile([one.at(rate) for one in series], f" at {rate:g}/s"))
    written.append(directory / "latency.png")
    written[-1].write_bytes(plots.latency_at_rates(series))
    written.append(directory / "throughput.png")
    written[-1].write_bytes(plots.throughput_by_rate(series))
    return written


def _ways(directory: Path, policies: Path, envoy: str) -> dict[str, Callable[[], AbstractContextManager[int]]]:
    resources = load([str(policies)]).resources
    builtin = as_document(bootstrap(resources, Mode.BUILTIN, _addresses(())))

    @contextmanager
    def asking(transport: str) -> Iterator[int]:
        socket = f"unix:{directory / transport}.sock"
        arguments = ("--policy", str(policies), "--workload", WORKLOAD, "--listen", socket, "--transport", transport)
        with run_service(["serve", *arguments, "--admin", "off", "--drain", "0"]):
            document = as_document(bootstrap(resources, Mode.EXT_AUTHZ, _addresses((socket,))))
            with _proxy(document, envoy) as port:
                yield port

    return {
        _ALONE: partial(_proxy, _without_authorization(builtin), envoy),
        "built-in filters": partial(_proxy, builtin, envoy),
        "extauthz, native": partial(asking, "native"),
        "extauthz, grpcio": partial(asking, "grpcio"),
    }


def _addresses(authz: tuple[str, ...]) -> Addresses:
    return Addresses("127.0.0.1:0", "127.0.0.1:1", authz, "127.0.0.1:0")


@contextmanager
def _proxy(document: dict[str, Any], envoy: str) -> Iterator[int]:
    with run_envoy(_answering_itself(document), binary=envoy) as proxy:
        yield proxy.listeners()["inbound"].addresses[0][1]


def _answering_itself(document: dict[str, Any]) -> dict[str, Any]:
    """The configuration with an answer of Envoy's own in place of the upstream, and without an access log."""
    manager = _manager(document)
    routes = [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}},
    ]
    kept = {name: value for name, value in manager.items() if name != "access_log"}
    hosts = [{**host, "routes": routes} for host in manager["route_config"]["virtual_hosts"]]
    return _with_manager(document, {**kept, "route_config": {**manager["route_config"], "virtual_hosts": hosts}})


def _without_authorization(document: dict[str, Any]) -> dict[str, Any]:
    manager = _manager(document)
    return _with_manager(document, {**manager, "http_filters": manager["http_filters"][-1:]})


def _manager(document: dict[str, Any]) -> dict[str, Any]:
    chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
    manager: dict[str, Any] = chain["filters"][0]["typed_config"]
    return manager


def _with_manager(document: dict[str, Any], manager: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(document))
    chain = copied["static_resources"]["listeners"][0]["filter_chains"][0]
    chain["filters"][0]["typed_config"] = manager
    return copied


if __name__ == "__main__":
    main()
