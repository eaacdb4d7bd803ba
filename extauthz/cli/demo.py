"""`extauthz demo`: the story end to end, as a table of requests with expected and actual status."""

from __future__ import annotations

import sys
import threading
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from extauthz.cli.output import EXIT_NEGATIVE, console
from extauthz.mesh.demo import Stage, Step, Story, ask, stage, tell


def command(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave Envoy and server running at the end, and print curl lines to try.")
    ] = False,
    envoy: Annotated[
        str, typer.Option("--envoy", envvar="EXTAUTHZ_ENVOY", metavar="PATH", help="The Envoy binary to run.")
    ] = "",
    show_policies: Annotated[bool, typer.Option("--policies/--no-policies", help="Print the policies first.")] = True,
) -> None:
    """Run the story end to end behind a real Envoy; exit 1 when an answer is not the expected one.

    A gateway demands a token on every path but /productpage. Key and tokens are made anew.
    """
    story = tell()
    if show_policies:
        print(next(iter(story.policies.values())))
    table = Table("policies", "token", "request", "expected", "actual", title="through Envoy, decided by extauthz")
    differences = 0
    for name, policies in story.policies.items():
        with stage(policies, envoy=envoy) as running:
            for step in (step for step in story.steps if step.policies == name):
                actual = ask(running.port, step)
                differences += actual != step.expected
                table.add_row(name, step.token_kind, f"GET {step.path}", str(step.expected), _verdict(step, actual))
        table.add_section()
    console().print(table)
    if keep:
        _keep(story, envoy)
    if differences:
        print(f"{differences} of {len(story.steps)} answers differ", file=sys.stderr)
        sys.exit(EXIT_NEGATIVE)
    print(f"all {len(story.steps)} answers as expected")


def _verdict(step: Step, actual: int) -> Text:
    right = actual == step.expected
    return Text(f"{actual} {'ok' if right else 'DIFFERENT'}", style="green" if right else "bold red")


def _keep(story: Story, envoy: str) -> None:
    name, policies = next(iter(story.policies.items()))
    with stage(policies, envoy=envoy) as running:
        print(f"\nrunning with {name}; Ctrl-C ends it. Envoy on port {running.port}, extauthz on {running.authz}\n")
        for step in story.steps:
            if step.policies == name and step.path == "/api/v1/products/0":
                print(f"# {step.token_kind} token: {step.expected}\n{_curl(running, step)}\n")
        threading.Event().wait()


def _curl(running: Stage, step: Step) -> str:
    token = f"-H 'authorization: Bearer {step.token}' " if step.token else ""
    return f"curl -i {token}http://127.0.0.1:{running.port}{step.path}"
