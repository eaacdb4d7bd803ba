"""How the command line speaks: errors as plain lines on stderr, tables on stdout, colour on a terminal only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from extauthz.errors import ExtAuthzError, PolicyError, Problem, Severity

if TYPE_CHECKING:
    from rich.console import Console

EXIT_NEGATIVE = 1
EXIT_USAGE = 2


def console() -> Console:
    """A console on stdout. Colour on a terminal only, and never with NO_COLOR."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 160)


def problem_lines(problems: Iterable[Problem]) -> Iterator[str]:
    """One line for each problem, `file:line: field: reason`, warnings marked as such."""
    for problem in problems:
        yield f"warning: {problem}" if problem.severity is Severity.WARNING else str(problem)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn this package's errors, and what a user does to a running command, into one clear line and an exit status."""
    try:
        yield
    except PolicyError as error:
        for line in problem_lines(error.problems):
            print(line, file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except ExtAuthzError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        # The reader of our output has left (`| head`): nothing to report, and stdout must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_NEGATIVE)
    except KeyboardInterrupt:
        sys.exit(130)
