"""What a release has to be: contents and metadata of sdist and wheel, and a trial of the installed wheel.

`make dist` runs it as a program: it checks a directory with both, writes SHA256SUMS and, with --install, tries the
wheel in an empty environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Mapping
from email import message_from_string
from pathlib import Path

ROOT = Path(__file__).parents[2]
STORY = ROOT / "examples" / "story" / "policies.yaml"
EXTENSIONS = (
    "authn/_jws",
    "checkapi/_scan",
    "checkapi/_wire",
    "loadtest/_sender",
    "server/native/_native",
)
DENIED = 1


def version() -> str:
    """The version that the source says."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "extauthz" / "_version.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def wheel_problems(wheel: Path) -> Iterator[str]:
    """What is wrong with a wheel."""
    if not re.fullmatch(rf"extauthz-{re.escape(version())}-cp311-abi3-(many)?linux_\w+\.whl", wheel.name):
        yield f"{wheel.name}: not the name of a wheel of {version()} for the stable ABI"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"extauthz-{version()}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
    wanted = {"extauthz/py.typed", "extauthz/__main__.py", f"{info}/licenses/LICENSE"}
    wanted |= {f"extauthz/{name}{suffix}" for name in EXTENSIONS for suffix in (".abi3.so", ".pyi")}
    yield from (f"{wheel.name}: lacks {name}" for name in sorted(wanted - names))
    for name in sorted(names):
        inside = name.startswith(f"{info}/") or re.fullmatch(r"extauthz/.*\.(py|pyi|abi3\.so)|extauthz/py\.typed", name)
        if not inside:
            yield f"{wheel.name}: has {name}, which nobody needs there"
    yield from (f"{wheel.name}: {problem}" for problem in metadata_problems(metadata))


def sdist_problems(sdist: Path) -> Iterator[str]:
    """What is wrong with a source distribution."""
    top = f"extauthz-{version()}"
    if sdist.name != f"{top}.tar.gz":
        yield f"{sdist.name}: not the name of a source distribution of {version()}"
    with tarfile.open(sdist) as archive:
        names = {member.name for member in archive.getmembers() if member.isfile()}
        described = archive.extractfile(f"{top}/PKG-INFO")
        assert described is not None
        metadata = described.read().decode()
    sources = {path for suffix in ("c", "h", "py", "pyi") for path in (ROOT / "extauthz").rglob(f"*.{suffix}")}
    wanted = {f"{top}/{path.relative_to(ROOT)}" for path in sources if path.name != "Makefile"}
    wanted |= {f"{top}/{name}" for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md")}
    yield from (f"{sdist.name}: lacks {name}" for name in sorted(wanted - names))
    for name in sorted(names):
        inside = name.removeprefix(f"{top}/")
        if inside.startswith(("tests/", "docs/", "benchmarks/", "deploy/", "build/")) or inside.endswith(
            (".so", ".pyc")
        ):
            yield f"{sdist.name}: has {inside}, which does not belong there"
    yield from (f"{sdist.name}: {problem}" for problem in metadata_problems(metadata))


def metadata_problems(text: str) -> Iterator[str]:
    """What an index would refuse, or show badly."""
    metadata = message_from_string(text)
    for field, wanted in (("Name", "extauthz"), ("Version", version()), ("License-Expression", "Apache-2.0")):
        if metadata[field] != wanted:
            yield f"{field} is {metadata[field]!r}, not {wanted!r}"
    if metadata["Description-Content-Type"] != "text/markdown":
        yield "the description is not marked as Markdown"
    if not metadata["Requires-Python"] or not metadata["Summary"] or "\n" in metadata["Summary"]:
        yield "Requires-Python and a Summary of one line are needed"
    if not str(metadata.get_payload()).lstrip().startswith("# extauthz"):
        yield "the description is not the README"


def try_installed(python: Path, directory: Path, environment: Mapping[str, str]) -> None:
    """Run what was installed, in an empty directory. Raises AssertionError with what it printed."""

    def run(*arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [python, "-m", "extauthz", *arguments], cwd=directory, env=environment, capture_output=True, text=True
        )
        assert done.returncode == status, f"{arguments}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    assert run("version") == f"extauthz {version()}\n"
    assert "native transport: available" in run("version", "--verbose")
    policies = str(STORY)
    assert "ALLOWED" in run("check", "--policy", policies, "/productpage").upper()
    assert "rbac_access_denied_matched_policy" in run("check", "--policy", policies, "/other", status=DENIED)


def main(arguments: list[str]) -> None:
    """Check a directory; see the module."""
    directory = Path(arguments[0])
    (wheel,) = directory.glob("*.whl")
    (sdist,) = directory.glob("*.tar.gz")
    problems = [*wheel_problems(wheel), *sdist_problems(sdist)]
    if problems:
        sys.exit("\n".join(problems))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in (wheel, sdist)]
    (directory / "SHA256SUMS").write_text("".join(sums))
    print("".join(sums), end="")
    if "--install" in arguments:
        with tempfile.TemporaryDirectory() as empty:
            venv.create(Path(empty) / "venv", with_pip=True)
            python = Path(empty) / "venv" / "bin" / "python"
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", wheel.resolve()], check=True)
            clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EXTAUTHZ"))}
            try_installed(python, Path(empty), clean)
            print(f"{wheel.name} installs into an empty environment and works there")


if __name__ == "__main__":
    main(sys.argv[1:])
