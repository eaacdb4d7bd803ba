"""The checks that need no network: what is declared, documented, imported and installed agrees."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from packaging.utils import canonicalize_name

from audit.installed import changed_files, closure, distribution, is_permitted, licence
from audit.project import RUNTIME, Declared, constraints, documented, imported_modules, name_of


def offline_problems(declared: Declared) -> list[str]:
    """Everything that is wrong."""
    return [
        *versions(declared),
        *table(declared),
        *imports(declared),
        *pins(declared),
        *contents(declared),
    ]


def versions(declared: Declared) -> Iterator[str]:
    """Everything declared is installed in a version that was asked for."""
    for one in declared:
        found = distribution(one.name)
        if found is None:
            yield f"{one.name} is not installed"
        elif not one.specifier.contains(found.version, prereleases=True):
            yield f"{one.name} {found.version} is installed, pyproject.toml wants {one.specifier}"


def table(declared: Declared) -> Iterator[str]:
    """docs/dependencies.md names every dependency with its licence, and nothing else."""
    rows = documented()
    names = declared.names()
    yield from (f"docs/dependencies.md lacks {name}" for name in sorted(names - rows.keys()))
    yield from (f"docs/dependencies.md names {name}, which is not in pyproject.toml" for name in rows.keys() - names)


def imports(declared: Declared) -> Iterator[str]:
    """What the package imports is declared, and not only brought along by something else."""
    owners = metadata.packages_distributions()
    known = declared.names()
    for module, file in imported_modules().items():
        names = {canonicalize_name(name) for name in owners.get(module.partition(".")[0], ())}
        if not names:
            yield f"{file} imports {module}, which nothing installed has"
        elif not names & known:
            yield f"{file} imports {module} of {', '.join(sorted(names))}, which is not in pyproject.toml"


def pins(declared: Declared) -> Iterator[str]:
    """constraints.txt holds everything that is installed for development, in the installed version."""
    pins = {name_of(one): one for one in constraints()}
    for name in sorted(closure(declared)):
        found = distribution(name)
        if found is None or name in ("setuptools", "pip", "wheel"):
            continue
        if name not in pins:
            yield f"constraints.txt lacks {name}=={found.version}"
        elif not pins[name].specifier.contains(found.version, prereleases=True):
            yield f"{name} {found.version} is installed, constraints.txt has {pins[name].specifier}"


def contents(declared: Declared) -> Iterator[str]:
    """Every distribution that comes at run time has a licence that may be used, and the files that it was made with."""
    for name in sorted(closure(declared.extras[RUNTIME])):
        found = distribution(name)
        assert found is not None
        if not is_permitted(licence(found)):
            yield f"{name} is licensed under {licence(found)!r}: look at it, then add it to audit/installed.py"
        if changed := changed_files(found):
            yield f"{name} {found.version} has changed files: {', '.join(changed[:3])}"
