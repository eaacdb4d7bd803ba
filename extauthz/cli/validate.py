"""`extauthz validate`: every error and every warning in policies."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated

import typer

from extauthz.authorizer import Authorizer, AuthorizerOptions
from extauthz.cli import options
from extauthz.cli.output import EXIT_NEGATIVE, problem_lines
from extauthz.errors import PolicyError, Problem, Severity
from extauthz.istio.lint import lint
from extauthz.istio.load import survey
from extauthz.istio.workload import Workload
from extauthz.key_lint import lint_keys

_DEFAULTS = AuthorizerOptions()


def command(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Policy files, directories, or - for stdin.")],
    workload: options.WorkloadName = "",
    root_namespace: options.RootNamespace = _DEFAULTS.root_namespace,
    provider: options.Provider = _DEFAULTS.provider,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the problems as a JSON array.")] = False,
) -> None:
    """Report every error and every warning in policies, each with file and line.

    Exit 0 when clean, 1 on errors (with --strict on warnings too), 2 for wrong usage.
    """
    chosen = Workload.parse(workload) if workload else None
    problems = _problems(paths, AuthorizerOptions(workload=chosen, root_namespace=root_namespace, provider=provider))
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    warnings = len(problems) - errors
    if json_output:
        print(json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False))
    else:
        for line in problem_lines(problems):
            print(line)
        print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    sys.exit(EXIT_NEGATIVE if errors or (strict and warnings) else 0)


def _problems(paths: Sequence[str], given: AuthorizerOptions) -> list[Problem]:
    loaded, found = survey(paths, policies_required=False)
    problems = list(found)
    try:
        # Without a workload: what cannot be compiled is an error in any policy.
        Authorizer(loaded.resources, replace(given, workload=None))
    except PolicyError as error:
        problems.extend(error.problems)
    # Warnings look at how resources go together, so they wait until all of them can be read.
    if not any(problem.severity is Severity.ERROR for problem in problems):
        problems.extend(lint(loaded.resources, workload=given.workload, root_namespace=given.root_namespace))
        problems.extend(lint_keys(loaded.resources, time.time()))
    order = {file: place for place, file in enumerate(loaded.files)}
    return sorted(problems, key=lambda problem: (order.get(problem.file, -1), problem.line, problem.field))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
