"""Sdist and wheel are built, hold what they should, and what is installed from the wheel works and is typed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TRACKED = ("extauthz", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")

PROGRAM = """\
from collections.abc import Sequence
from extauthz import Authorizer, AuthorizerOptions, Decision, ExtAuthzError, MalformedCheckRequest, PolicyError
from extauthz import Problem, Request, UsageError, __version__, load_policies

def decide(files: Sequence[str]) -> Decision:
    authorizer = Authorizer(load_policies(files), AuthorizerOptions(trusted_hops=1))
    try:
        authorizer.check(b"")
    except MalformedCheckRequest:
        pass
    return authorizer.decide(Request(path="/x", headers={"a": ["b"]}), now=0.0)

def told(error: PolicyError) -> list[str]:
    problems: Sequence[Problem] = error.problems
    return [f"{problem.file}:{problem.line}: {problem.reason}" for problem in problems]

def kind(error: ExtAuthzError) -> bool:
    return isinstance(error, UsageError)

allowed: bool = decide(["policies.yaml"]).allowed
version: str = __version__
reveal_type(load_policies([]))
"""


@pytest.fixture(scope="session")
def release_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_check", Path(__file__).with_name("release_check.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in TRACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(source)],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="session")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (wheel,) = dist.glob("*.whl")
    environment = tmp_path_factory.mktemp("installed")
    venv.create(environment, symlinks=True)
    (target,) = environment.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    return target


needs_extensions = pytest.mark.skipif(
    not list((ROOT / "extauthz" / "server" / "native").glob("_native*.so")), reason="extensions cannot be built here"
)


@needs_extensions
def test_the_wheel_holds_the_program_and_nothing_else(dist: Path, release_check: ModuleType) -> None:
    (wheel,) = dist.glob("*.whl")
    assert list(release_check.wheel_problems(wheel)) == []


def test_the_sdist_holds_the_sources(dist: Path, release_check: ModuleType) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    assert list(release_check.sdist_problems(sdist)) == []


@needs_extensions
def test_the_wheel_does_not_tell_where_it_was_built(installed: Path) -> None:
    built = list(installed.rglob("*.so"))
    assert built
    place = tempfile.gettempdir().encode()  # wheels are built from the sdist, unpacked there
    assert [path.name for path in built if place in path.read_bytes()] == []


@needs_extensions
def test_what_is_installed_works(installed: Path, release_check: ModuleType, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    release_check.try_installed(Path(sys.executable), tmp_path, environment)
    where = [sys.executable, "-c", "import extauthz; print(extauthz.__file__)"]
    printed = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.startswith(str(installed))


def test_the_sdist_builds_a_wheel_without_a_compiler(dist: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    environment = {**os.environ, "CC": "no-such-compiler"}
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(sdist)], env=environment, check=True)
    assert [path.name for path in tmp_path.iterdir()] == [sdist.name.replace(".tar.gz", "-py3-none-any.whl")]


def test_the_version_is_the_same_everywhere(release_check: ModuleType) -> None:
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == release_check.version()


def test_a_program_that_uses_the_public_api_type_checks(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    python = installed.parents[2] / "bin" / "python"
    arguments = [
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--python-executable",
        str(python),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.count("error:")) == (0, 0), done.stdout + done.stderr
    assert 'Revealed type is "extauthz.istio.resources.Resources"' in done.stdout
