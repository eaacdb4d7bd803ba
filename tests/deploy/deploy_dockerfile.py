"""Executes a Dockerfile without an engine: COPY and RUN in order, each stage in a directory of its own.

What is different from an image, and why the result still says something about it:

- The stage's system is this machine's: its Python, its compiler. `apt-get` commands are not run; that the packages they
  name are known to this system's apt is a test of its own.
- Absolute paths below the directories that the Dockerfile makes are moved into the stage's directory.
- Dependencies are not downloaded again: pip runs with --no-deps and without build isolation, and the environments that
  the Dockerfile makes see the packages of the environment that runs the tests, but not its source tree.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from deploy_serve import clean_environment


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction."""

    name: str
    text: str

    @property
    def form(self) -> list[str]:
        """The words of the exec form."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


@dataclass(slots=True)
class Stage:
    """A stage: its name or number, and its steps."""

    name: str
    steps: list[Step] = field(default_factory=list)

    def last(self, name: str) -> Step:
        """The instruction of this name that counts."""
        return [step for step in self.steps if step.name == name][-1]

    def environment(self) -> dict[str, str]:
        """The variables that ENV sets."""
        pairs = (word.partition("=") for step in self.steps if step.name == "ENV" for word in step.text.split())
        return {name: value for name, _, value in pairs}

    def apt_packages(self) -> list[str]:
        """The packages that are installed."""
        lines = [step.text for step in self.steps if step.name == "RUN" and "apt-get" in step.text]
        found = (re.search(r"apt-get install ([^&]*)", line) for line in lines)
        return [word for match in found if match for word in match[1].split() if not word.startswith("-")]


def stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, text = line.partition(" ")
        if name == "FROM":
            words = text.split()
            found.append(Stage(words[2] if words[1:2] == ["AS"] else str(len(found))))
        elif found:
            found[-1].steps.append(Step(name, text.strip()))
    return found


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a file (relative path) out of the build. The last pattern that matches decides."""
    out = False
    for pattern in patterns:
        negated, bare = pattern.startswith("!"), pattern.lstrip("!")
        if any(fnmatch(part, bare.removeprefix("**/")) for part in _prefixes(path, anywhere=bare.startswith("**/"))):
            out = not negated
    return out


def _prefixes(path: str, *, anywhere: bool) -> list[str]:
    parts = path.split("/")
    return parts if anywhere else ["/".join(parts[: count + 1]) for count in range(len(parts))]


class Builder:
    """Builds the stages of a Dockerfile below a directory."""

    def __init__(self, context: Path, directory: Path, python: str, moved: tuple[str, ...]) -> None:
        self.context = context
        self.directory = directory
        self.skipped: list[str] = []
        self._python = python
        self._moved = moved
        self._patterns = (context / ".dockerignore").read_text().splitlines()
        self._patterns = [line for line in self._patterns if line and not line.startswith("#")]

    def root(self, stage: str) -> Path:
        """Where a stage's files are."""
        return self.directory / stage

    def build(self, stage: Stage) -> None:
        """Run a stage's steps."""
        root = self.root(stage.name)
        root.mkdir()
        for step in stage.steps:
            if step.name == "COPY":
                self._copy(root, step.text.split())
            elif step.name == "WORKDIR":
                self._within(root, step.text).mkdir(parents=True, exist_ok=True)
            elif step.name == "RUN" and step.text.startswith("apt-get"):
                self.skipped.append(step.text)
            elif step.name == "RUN":
                self._run(root, step.text)
        for environment in root.glob("opt/*/lib/python*/site-packages"):
            # A plain line in a .pth file adds the packages alone: not the editable install that is among them.
            (environment / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def _within(self, root: Path, path: str) -> Path:
        return root / path.lstrip("/")

    def _copy(self, root: Path, words: list[str]) -> None:
        if words[0].startswith("--from="):
            source = self.root(words[0].removeprefix("--from="))
            shutil.copytree(self._within(source, words[1]), self._within(root, words[2]), symlinks=True)
            # A virtual environment knows its own path, which differs here.
            self._relocate(source, root, self._within(root, words[2]))
            return
        *names, target = words
        for name in names:
            path = self.context / name
            if path.is_dir():
                shutil.copytree(path, self._within(root, target), ignore=self._leave_out)
            elif not ignored(name, self._patterns):
                shutil.copy(path, self._within(root, target))

    def _leave_out(self, directory: str, names: list[str]) -> set[str]:
        below = Path(directory).relative_to(self.context)
        return {name for name in names if ignored(str(below / name), self._patterns)}

    def _relocate(self, source: Path, root: Path, copied: Path) -> None:
        for script in (copied / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                text = script.read_bytes()
                script.write_bytes(text.replace(str(source).encode(), str(root).encode()))

    def _run(self, root: Path, command: str) -> None:
        for prefix in self._moved:
            command = re.sub(rf"(?<![\w./]){prefix}(?=[/\s]|$)", f"{root}{prefix}", command)
        command = re.sub(r"(^|\s)python ", rf"\g<1>{self._python} ", command)
        variables = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "CFLAGS": "-O0"}
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=root,
            env=clean_environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
