"""Every way in which this package refuses what it is given, named by whose fault it was.

Nothing here is raised for a request that is denied: a denial is a `Decision`, not an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class ExtAuthzError(Exception):
    """The root of this package's errors."""


class MalformedCheckRequest(ExtAuthzError):
    """The bytes of a Check call are no CheckRequest that can be decided: the caller's fault (gRPC INVALID_ARGUMENT)."""


class NotAnHttpRequest(MalformedCheckRequest):
    """A well-formed CheckRequest about something that is no HTTP request. It is denied, as nothing can be decided."""


class UsageError(ExtAuthzError):
    """An option of the command line or a constructor cannot be used; the text says which and what to write instead."""


class Severity(StrEnum):
    """How much a problem weighs: an error keeps the policies from loading, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what an operator wrote: where it stands, what was found, what to write instead.

    `line` counts from 1; 0 says that the problem is not at one line (a missing file). `field` is the path inside the
    resource as istiod prints it (`spec.rules[0].to[0].operation.paths[1]`), empty for a whole document. `code` is the
    short, stable name of the check (`unknown-field`, `never-matches`), for machines.
    """

    file: str
    line: int
    field: str
    reason: str
    severity: Severity = Severity.ERROR
    code: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.field}: {self.reason}" if self.field else self.reason
        return f"{where}: {what}"


class PolicyError(ExtAuthzError):
    """Policies cannot be loaded. `problems` holds everything that was found, errors and warnings, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
