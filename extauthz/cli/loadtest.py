"""`extauthz loadtest`: what authorization costs at a given rate, measured."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extauthz.cli.output import EXIT_NEGATIVE, console
from extauthz.errors import UsageError

if TYPE_CHECKING:
    from extauthz.loadtest.plan import LoadOptions

_NEEDED = ("hdrh", "matplotlib", "numpy")
_EXIT_INTERRUPTED = 130
_SERVER, _LOAD, _REQUESTS, _TOKENS, _REPORT = "Whom to ask", "Load", "Requests", "Tokens", "Report"


def command(
    target: Annotated[
        str,
        typer.Option(
            metavar="ADDR", help="An ext_authz server: HOST:PORT, [IPV6]:PORT or unix:/PATH.", rich_help_panel=_SERVER
        ),
    ] = "",
    url: Annotated[
        str, typer.Option(metavar="URL", help="A URL behind a proxy instead: http or https.", rich_help_panel=_SERVER)
    ] = "",
    rate: Annotated[
        str,
        typer.Option(
            help="Calls per second: a value, a list 500,1000, or a ramp 500..8000/8 (8 rates).", rich_help_panel=_LOAD
        ),
    ] = "1000",
    duration: Annotated[float, typer.Option(help="Seconds to measure at each rate.", rich_help_panel=_LOAD)] = 10.0,
    warmup: Annotated[
        float, typer.Option(help="Seconds to run at each rate before measuring.", rich_help_panel=_LOAD)
    ] = 1.0,
    arrivals: Annotated[
        str,
        typer.Option(
            metavar="constant|poisson",
            help="Equal gaps between calls, or as independent clients come.",
            rich_help_panel=_LOAD,
        ),
    ] = "constant",
    connections: Annotated[
        int,
        typer.Option(
            help="Connections of all workers together; 0: 4, 64 for HTTP/1.1, 1 for grpcio.", rich_help_panel=_LOAD
        ),
    ] = 0,
    workers: Annotated[int, typer.Option(help="Sending processes.", rich_help_panel=_LOAD)] = 1,
    timeout: Annotated[
        float, typer.Option(help="Seconds from when a call is due until it counts as failed.", rich_help_panel=_LOAD)
    ] = 5.0,
    method: Annotated[str, typer.Option(help="HTTP method of the request.", rich_help_panel=_REQUESTS)] = "GET",
    path: Annotated[
        str, typer.Option(help="Its path with query; empty: the URL's, or /.", rich_help_panel=_REQUESTS)
    ] = "",
    header: Annotated[
        list[str], typer.Option(metavar="'NAME: VALUE'", help="A header of it; repeatable.", rich_help_panel=_REQUESTS)
    ] = [],  # noqa: B006
    requests: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Requests as JSON lines, in the format of verify --cases.", rich_help_panel=_REQUESTS
        ),
    ] = None,
    policy: Annotated[
        list[str],
        typer.Option(
            "--policy",
            "-p",
            metavar="PATH",
            help="Draw requests from these policies; repeatable.",
            rich_help_panel=_REQUESTS,
        ),
    ] = [],  # noqa: B006
    http: Annotated[
        str,
        typer.Option(metavar="1.1|2", help="What to speak to --url; 2 is HTTP/2 without TLS.", rich_help_panel=_SERVER),
    ] = "1.1",
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS to --target.", rich_help_panel=_SERVER)] = False,
    ca: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="The authority (PEM) that signed the server's certificate.", rich_help_panel=_SERVER
        ),
    ] = "",
    cert: Annotated[str, typer.Option(metavar="FILE", help="Our own certificate (PEM).", rich_help_panel=_SERVER)] = "",
    cert_key: Annotated[str, typer.Option(metavar="FILE", help="And its key.", rich_help_panel=_SERVER)] = "",
    tls_name: Annotated[
        str,
        typer.Option(metavar="NAME", help="The name that the server's certificate must have.", rich_help_panel=_SERVER),
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Accept any certificate of --url.", rich_help_panel=_SERVER)
    ] = False,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tokens to send, one a line.", rich_help_panel=_TOKENS)
    ] = None,
    mint: Annotated[
        int, typer.Option(metavar="N", help="Mint so many different tokens instead.", rich_help_panel=_TOKENS)
    ] = 0,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Private key (PEM) or secret that signs them.", rich_help_panel=_TOKENS),
    ] = None,
    kid: Annotated[str, typer.Option(help="Its key id.", rich_help_panel=_TOKENS)] = "test-key",
    jwks_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save the key set that verifies minted tokens.", rich_help_panel=_TOKENS),
    ] = None,
    alg: Annotated[
        str, typer.Option(help="Algorithm of minted tokens, or shares: RS256=90,ES256=10.", rich_help_panel=_TOKENS)
    ] = "RS256",
    issuer: Annotated[str, typer.Option(help="Their iss.", rich_help_panel=_TOKENS)] = "testing@secure.istio.io",
    audience: Annotated[list[str], typer.Option(help="Their aud; repeatable.", rich_help_panel=_TOKENS)] = [],  # noqa: B006
    claim: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="A claim of theirs; VALUE is JSON or text.", rich_help_panel=_TOKENS),
    ] = [],  # noqa: B006
    mix: Annotated[
        str,
        typer.Option(
            help="Shares of tokens: good, none, bad, expired, or any kind of token --broken list.",
            rich_help_panel=_TOKENS,
        ),
    ] = "good",
    zipf: Annotated[
        float,
        typer.Option(help="Popularity of tokens: the n-th is sent as 1/n^ZIPF; 0: all alike.", rich_help_panel=_TOKENS),
    ] = 0.0,
    token_header: Annotated[
        str, typer.Option(metavar="'NAME: PREFIX'", help="Where tokens are put.", rich_help_panel=_TOKENS)
    ] = "authorization: Bearer",
    sender: Annotated[
        str,
        typer.Option(
            metavar="auto|native|portable",
            help="The native sender is built in C and does not speak TLS.",
            rich_help_panel=_LOAD,
        ),
    ] = "auto",
    calibration: Annotated[
        float,
        typer.Option(
            help="Seconds at each rate against a server that does nothing, first; 0: none.", rich_help_panel=_LOAD
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same arrivals and requests.", rich_help_panel=_LOAD)
    ] = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write JSON, CSV, HDR log, PNG plots and an HTML page there.", rich_help_panel=_REPORT
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare with the report.json of another run.", rich_help_panel=_REPORT),
    ] = None,
    slo: Annotated[
        list[str],
        typer.Option(metavar="OBJECTIVE", help="As p99<2ms@2000 or errors<0.1%; repeatable.", rich_help_panel=_REPORT),
    ] = [],  # noqa: B006
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole report as JSON instead of tables.", rich_help_panel=_REPORT)
    ] = False,
) -> None:
    """Measure the latency of authorization under open-loop load, against an ext_authz server or a URL behind a mesh.

    Calls are sent at times fixed beforehand and never wait for answers; latency counts from when a call was due.
    Exit 1 when an objective is missed, a result is not valid, or nothing was answered; 130 when interrupted.
    """
    _check_installed()
    from extauthz.loadtest.plan import LoadOptions, TokenOptions
    from extauthz.loadtest.target import TlsFiles

    options = LoadOptions(
        target=target,
        url=url,
        http=http,
        tls=TlsFiles(tls, ca, cert, cert_key, tls_name, insecure),
        method=method,
        path=path,
        headers=tuple(header),
        requests=requests,
        policies=tuple(policy),
        tokens=TokenOptions(
            file=tokens,
            mint=mint,
            key=key,
            kid=kid,
            jwks_out=jwks_out,
            algorithms=alg,
            issuer=issuer,
            audiences=tuple(audience),
            claims=tuple(claim),
            mix=mix,
            zipf=zipf,
            header=token_header,
        ),
        rate=rate,
        arrivals=arrivals,
        seconds=duration,
        warmup=warmup,
        connections=connections,
        workers=workers,
        timeout=timeout,
        sender=sender,
        calibration=calibration,
        seed=seed,
    )
    _run(options, report, compare, slo, as_json)


def _check_installed() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError("loadtest needs packages that are not installed: pip install 'extauthz[loadtest]'")


def _run(options: LoadOptions, directory: Path | None, other: Path | None, slo: list[str], as_json: bool) -> None:
    from extauthz.loadtest import compare, plan, report, report_json, run, terminal
    from extauthz.loadtest import slo as objectives

    wanted = [objectives.parse_objective(text) for text in slo]
    before = None if other is None else report_json.read_samples(other)
    if directory is not None:
        report.check_directory(directory)
    laid_out = plan.make_plan(options, terminal.minting_progress)
    progress = terminal.Progress(laid_out.target.protocol)
    try:
        found = run.run(laid_out, progress)
    finally:
        progress.close()
    if as_json:
        print(json.dumps(report_json.as_document(found)))
    elif found.steps:
        console().print(terminal.results_table(found))
    for line in terminal.problem_lines(found):
        print(line, file=sys.stderr)
    if directory is not None:
        for path in report.write(found, directory):
            print(f"wrote {path}", file=sys.stderr)
    if before is not None:
        comparison = compare.compare([report_json.sample(step) for step in found.steps], before)
        if not as_json:
            console().print(terminal.comparison_table(comparison))
        for remark in comparison.remarks:
            print(remark, file=sys.stderr)
    judgements = objectives.judge(wanted, found.steps)
    for line in terminal.judgement_lines(judgements):
        print(line, file=sys.stderr if as_json else sys.stdout)
    if found.interrupted:
        sys.exit(_EXIT_INTERRUPTED)
    answered = all(step.valid and step.counts.answered for step in found.steps)
    if not answered or not all(judgement.met for judgement in judgements):
        sys.exit(EXIT_NEGATIVE)
