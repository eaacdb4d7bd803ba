"""`extauthz verify`: the same requests through the mesh's own filters and through this service."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from extauthz.authorizer import AuthorizerOptions
from extauthz.cli import options
from extauthz.cli.output import EXIT_NEGATIVE
from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.mesh.verify import record, report
from extauthz.mesh.verify.campaign import Report
from extauthz.mesh.verify.run import verify
from extauthz.mesh.verify.trials import from_case_files, from_policies, from_random_policies

_DEFAULTS = AuthorizerOptions()


def command(
    policy: options.Policy = [],  # noqa: B006
    workload: options.WorkloadName = "",
    root_namespace: options.RootNamespace = _DEFAULTS.root_namespace,
    trust_domain: options.TrustDomain = _DEFAULTS.trust_domain,
    trust_domain_alias: options.TrustDomainAlias = [],  # noqa: B006
    trusted_hops: options.TrustedHops = _DEFAULTS.trusted_hops,
    provider: options.Provider = _DEFAULTS.provider,
    cases: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="Requests as JSON lines, or YAML with policies and answers. Repeatable."),
    ] = [],  # noqa: B006
    fuzz: Annotated[int, typer.Option(metavar="N", min=0, help="Draw N requests from the policies at random.")] = 0,
    random_policies: Annotated[
        int, typer.Option(metavar="N", min=0, help="Draw N sets of policies at random, too (with --fuzz).")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The seed for everything random: equal seeds draw the same.")] = 0,
    via: Annotated[
        str,
        typer.Option(
            metavar="authorizer|envoy",
            help="Our side: asked in this process, or as a running server behind Envoy's ext_authz filter.",
        ),
    ] = "authorizer",
    envoy: Annotated[str, typer.Option(metavar="PATH", help="The Envoy to run.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what differs as cases that expect the mesh's answers.")
    ] = None,
) -> None:
    """Send requests through the real Envoy's built-in filters and through this service, and report what differs.

    Requests come from --cases, or are drawn from the policies with --fuzz; without either a suite that goes through the
    policies one by one is used. Exit status: 0 when both sides agree, 1 otherwise.
    """
    if via not in ("authorizer", "envoy"):
        raise UsageError(f"--via {via!r}: use authorizer or envoy")
    if random_policies and not fuzz:
        raise UsageError("--random-policies: say with --fuzz how many requests to draw")
    if not (policy or cases or random_policies):
        raise UsageError("name the policies with --policy, or cases that have their own with --cases")
    authorizer_options = options.authorizer_options(
        workload=workload,
        root_namespace=root_namespace,
        trust_domain=trust_domain,
        trust_domain_alias=trust_domain_alias,
        jwt_algorithms="all",
        trusted_hops=trusted_hops,
        cluster_domain=_DEFAULTS.cluster_domain,
        provider=provider,
    )
    resources = load(policy).resources if policy else None
    trials = [from_case_files(cases, resources, authorizer_options)]
    if random_policies:
        trials.append(from_random_policies(random_policies, fuzz, seed))
    elif resources is not None and (fuzz or not cases):
        drawn = from_policies(resources, authorizer_options, seed=seed, count=fuzz or None, title=", ".join(policy))
        trials.append(drawn)
    with _ending_on_sigterm(), _progress(quiet=as_json) as progress:
        result = verify(chain(*trials), envoy=envoy, through_envoy=via == "envoy", progress=progress)
    if save is not None:
        record.save(result, save)
    if as_json:
        print(json.dumps(record.document(result), indent=2))
    else:
        print("\n".join(report.lines(result)))
    if not result.agreed:
        sys.exit(EXIT_NEGATIVE)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Report], None] | None]:
    """A line on the terminal that counts while it goes on; nothing when stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting Envoy", total=None)

        def show(result: Report) -> None:
            if result.compared % 50 == 0:
                counts = f"{result.sets:,} sets of policies, {result.compared:,} requests, {result.differing:,} differ"
                bar.update(task, description=counts)

        yield show


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command the orderly way, so that Envoy ends with it."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
