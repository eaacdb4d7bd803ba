"""What the project says of its dependencies: pyproject.toml, constraints.txt, docs/dependencies.md, and its imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
ITSELF = "extauthz"
RUNTIME = ""
"""The name here of the dependencies that are no extra."""

ROW = re.compile(r"^\| `([\w.-]+)` \|(.*)\|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Declared:
    """Requirements by extra; `RUNTIME` holds those that are always installed."""

    extras: dict[str, tuple[Requirement, ...]]

    @classmethod
    def read(cls, root: Path = ROOT) -> Declared:
        """Those of pyproject.toml, extras of the project itself in extras left out."""
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        groups = {RUNTIME: project["dependencies"], **project["optional-dependencies"]}
        parsed = {name: [Requirement(text) for text in texts] for name, texts in groups.items()}
        return cls({name: tuple(one for one in found if name_of(one) != ITSELF) for name, found in parsed.items()})

    def __iter__(self) -> Iterator[Requirement]:
        return (one for group in self.extras.values() for one in group)

    def names(self, *extras: str) -> set[str]:
        """Canonical names of some groups, of all without arguments."""
        return {name_of(one) for name in extras or self.extras for one in self.extras[name]}


def name_of(requirement: Requirement) -> str:
    """The canonical name of a distribution."""
    return canonicalize_name(requirement.name)


def documented(root: Path = ROOT) -> dict[str, list[str]]:
    """The tables of docs/dependencies.md: distribution -> the other cells of its row."""
    text = (root / "docs" / "dependencies.md").read_text()
    rows = ((canonicalize_name(name), rest) for name, rest in ROW.findall(text))
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def constraints(root: Path = ROOT) -> list[Requirement]:
    """The versions that the project is developed with."""
    lines = (root / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def imported_modules(root: Path = ROOT) -> dict[str, str]:
    """Modules beyond the standard library that the package imports -> a file that does; two levels for namespaces."""
    found: dict[str, str] = {}
    for path in sorted((root / "extauthz").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != ITSELF:
                    key = ".".join(name.split(".")[:2]) if top == "google" else top
                    found.setdefault(key, str(path.relative_to(root)))
    return found
