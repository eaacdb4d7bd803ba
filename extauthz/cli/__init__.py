"""The command line: which commands there are. Each lives in the module of its name and is imported only when it runs.

Commands turn options into calls and results into output and an exit status; they hold no logic of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = (
    "serve",
    "check",
    "validate",
    "verify",
    "envoy-config",
    "jwks",
    "loadtest",
    "token",
    "demo",
    "null",
    "healthcheck",
    "version",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status: 0, 1 for a negative answer, 2 for wrong usage or unusable policies."""
    import typer

    from extauthz.cli.output import reporting_errors
    from extauthz.cli.plain_help import PlainCommand
    from extauthz.cli.version import program

    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["--show-completion"], ["--install-completion"]) and len(given) == 2:
        # A shell that is named is not looked for; typer reads this each time its options are made.
        os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(program)
    # Start-up time counts for a sidecar: other commands' imports are paid only by help and the completion of names.
    for name in _needed(given):
        module = import_module(f"extauthz.cli.{name.replace('-', '_')}")
        # A short help of our own is wrapped; typer's would be cut.
        summary = module.command.__doc__.strip().partition("\n\n")[0].replace("\n", " ")
        app.command(name, cls=PlainCommand, short_help=" ".join(summary.split()))(module.command)
    with reporting_errors():
        app(given, prog_name="extauthz")


def _needed(given: Sequence[str]) -> Sequence[str]:
    """The one command that runs or whose options a shell completes; otherwise all."""
    if "_EXTAUTHZ_COMPLETE" in os.environ:
        line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
        words = line.split()[1:]
        # While its name is the last word it may still become another.
        given = words if len(words) > 1 or line[-1:].isspace() else ()
    return given[:1] if given and given[0] in COMMANDS else COMMANDS
