"""Imports go down only: the floors of CONTRIBUTING.md, read from the source, and what is allowed beside them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "extauthz"

FLOORS = {
    1: ("_version", "request", "identity", "decision", "errors", "envoy_http", "minting", "broken_tokens", "protos"),
    2: ("istio", "checkapi"),
    3: ("authn", "authz"),
    4: ("authorizer", "explain", "key_lint"),
    5: ("server", "mesh", "loadtest"),
    6: ("cli",),
    7: ("__init__", "__main__"),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# Rooms of floors 1 and 4 are single modules that may build on each other; of the others only these do, and only so far.
NEIGHBOURS = {
    ("loadtest", "mesh"): "requests are drafted for policies, and Envoy is run, as for a comparison with the mesh",
    ("loadtest", "server.listeners"): "a target is written as an address to listen on is",
}
# What is compared with the service must not share its code. `verify` asks it through its public door.
ORACLE_MAY_SEE = ("authorizer", "checkapi.read")


def names_in(module: str) -> Iterator[str]:
    """Every module of the package that `module` imports, wherever in it, without the package's name."""
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("extauthz.") for name in found if name.split(".")[0] == "extauthz")


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    return module.split(".")[0]


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{place}.") for place in places)


IMPORTS = [(module, name) for module in modules() for name in names_in(module)]


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in modules()} == set(FLOOR)
    assert len(IMPORTS) > 1000


@pytest.mark.parametrize("upper", sorted(FLOOR))
def test_a_room_imports_from_below_only(upper: str) -> None:
    wrong = []
    for module, name in IMPORTS:
        lower = room(name)
        if room(module) != upper or lower == upper:
            continue
        level = FLOOR.get(lower, 7)
        neighbours = level == FLOOR[upper] and (
            level in (1, 4) or any(above == upper and within(name, (below,)) for above, below in NEIGHBOURS)
        )
        if level >= FLOOR[upper] and not neighbours:
            wrong.append(f"{module} imports {name}")
    assert not wrong


def test_every_exception_is_used() -> None:
    for upper, lower in NEIGHBOURS:
        assert any(room(module) == upper and within(name, (lower,)) for module, name in IMPORTS), (upper, lower)


def test_the_oracle_shares_no_code_with_what_it_is_compared_with() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, name in IMPORTS
        if room(module) == "mesh"
        and room(name) in ("authn", "authz", "checkapi", "authorizer", "explain", "key_lint", "server")
        and not (module.startswith("mesh.verify.") and within(name, ORACLE_MAY_SEE))
    ]
    assert not wrong


def test_no_two_modules_need_each_other() -> None:
    existing = set(modules())
    needs: dict[str, set[str]] = {module: set() for module in existing}
    for module, name in IMPORTS:
        # `from package import module` names a module, `from module import thing` one and something in it.
        found = name if name in existing else name.rpartition(".")[0]
        needs[module].update({found} & existing - {module})
    while free := {module for module, below in needs.items() if not below}:
        needs = {module: below - free for module, below in needs.items() if module not in free}
    assert not needs, "these import each other, or what does"


def test_nothing_in_the_package_imports_what_is_not_installed_with_it() -> None:
    outside = {"tests", "benchmarks", "audit", "protos", "docs"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not outside & {name.split(".")[0] for name in names}, path


def test_every_module_says_what_belongs_there() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*.py")
        if not path.name.endswith("_pb2.py") and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_contributing_shows_each_room_on_its_floor() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for name, floor in FLOOR.items():
        if name.startswith("_"):
            continue
        rows = [line for line in page.splitlines() if line.startswith("| ") and f"`{name}" in line]
        assert any(line.startswith(f"| {floor} |") for line in rows), name
