"""Which files a list of paths stands for, and their bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO

from extauthz.errors import Problem

SUFFIXES = (".yaml", ".yml", ".json")
"""What directories are searched for."""

STDIN = "-"
MAX_FILE_BYTES = 64 * 1024 * 1024


def shown(file: str) -> str:
    """How a file is named to people."""
    return "<stdin>" if file == STDIN else file


def policy_files(paths: Sequence[str], problems: list[Problem]) -> list[str]:
    """The files that paths stand for, in order, each once however often it is named or linked to.

    A directory stands for the `*.yaml`, `*.yml` and `*.json` files below it, sorted; one without any is a problem.
    """
    files: dict[str, str] = {}
    for path in paths:
        names = [path]
        if path != STDIN and os.path.isdir(path):
            names = sorted(_search(path, problems))
            if not names:
                kinds = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
                problems.append(Problem(path, 0, "", f"no policy files in this directory ({kinds})", code="no-files"))
        for name in names:
            files.setdefault(name if name == STDIN else os.path.realpath(name), name)
    return list(files.values())


def _search(directory: str, problems: list[Problem]) -> Iterator[str]:
    """Policy files below a directory, links to directories included. Hidden names are left out: in a mounted ConfigMap
    the files in `..data` are linked to from beside it, and editors hide their drafts."""

    def report(error: OSError) -> None:
        name = str(error.filename or directory)
        problems.append(Problem(name, 0, "", f"cannot be read: {error.strerror}", code="unreadable"))

    seen: set[str] = set()
    for place, subdirectories, names in os.walk(directory, onerror=report, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            subdirectories.clear()
            continue
        seen.add(real)
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        yield from (os.path.join(place, name) for name in names if name.endswith(SUFFIXES) and not name.startswith("."))


def contents(file: str, stdin: IO[str] | None, problems: list[Problem]) -> bytes | None:
    """The bytes of a file or of standard input; None, and a problem, when they cannot be had."""
    try:
        if file == STDIN:
            source = sys.stdin if stdin is None else stdin
            data = source.read(MAX_FILE_BYTES + 1).encode("utf-8", "surrogateescape")
        else:
            with open(file, "rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problems.append(Problem(shown(file), 0, "", f"cannot be read: {error.strerror}", code="unreadable"))
    except ValueError as error:
        problems.append(Problem(shown(file), 0, "", f"cannot be read: {error}", code="unreadable"))
    else:
        if len(data) <= MAX_FILE_BYTES:
            return data
        problems.append(Problem(shown(file), 0, "", f"larger than {MAX_FILE_BYTES} bytes", code="too-large"))
    return None
