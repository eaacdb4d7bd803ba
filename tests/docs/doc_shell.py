"""Runs a page: one shell in a directory and a network of its own, the page's commands one after the other.

The network is a namespace with nothing but loopback addresses: a page can use the ports that it shows, pages can run
side by side, and nothing outside can be reached. It has the address 192.0.2.7, too.

`python tests/docs/doc_shell.py PAGE` prints a page's commands with what they really print, for writing pages.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from doc_command_server import COMMANDS
from doc_pages import ROOT, Block, Page, read

BIN = Path(sys.executable).parent
COMMAND_SECONDS = 60
READY_SECONDS = 40
NOT_FOUND = 127
ANY = "..."
RUN = ("console", "sh")
MADE = "make "
"""Targets of make are looked up, not run: they are the project's own tests, benchmarks and installation."""

PROGRAMS = ("unshare", "ip", "bash", "curl", "openssl")
"""What the pages' commands are run with, and call."""

_READY = {"extauthz": "ready", "envoy": "starting main dispatch loop"}
_NAMESPACE = ("unshare", "--map-root-user", "--net")
_STATUS_PIPE = 9
_LOOPBACK = "ip link set lo up && ip address add 192.0.2.7/32 dev lo"


@dataclass(frozen=True, slots=True)
class Step:
    """A command and what the page shows below it; None: nothing is shown and it has to succeed."""

    block: Block
    command: str
    shown: tuple[str, ...] | None
    background: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was run."""

    step: Step
    status: int
    output: str

    def complaint(self) -> str:
        """What is wrong with it; empty when it did what the page says."""
        shown = self.step.shown
        # A command that shows its output may fail: `check` exits 1 for a denied request.
        if self.status == NOT_FOUND or (self.status and not shown):
            return f"{self.step.block}: exit status {self.status}:\n$ {self.step.command}\n{self.output}"
        if shown is not None and not matches(shown, self.output):
            wanted = "\n".join(shown)
            return f"{self.step.block}:\n$ {self.step.command}\n--- shown\n{wanted}\n--- printed\n{self.output}"
        return ""


def steps(block: Block) -> Iterator[Step]:
    """The commands of a block that is run."""
    if block.language == "sh":
        yield from (Step(block, _extended(command, block), None) for command in _sh_commands(block.text))
        return
    command: list[str] = []
    shown: list[str] = []
    for line in (*block.text.splitlines(), None):
        if command and not shown and line is not None and (line.startswith("> ") or command[-1].endswith("\\")):
            command.append(line.removeprefix("> "))
        elif line is None or line.startswith("$ "):
            if command:
                yield Step(block, _extended("\n".join(command), block), tuple(shown), "background" in block.flags)
            command, shown = [] if line is None else [line.removeprefix("$ ")], []
        else:
            shown.append(line)


def _sh_commands(text: str) -> Iterator[str]:
    """Commands of a plain script. A line that is indented, or ends a group, belongs to the one before it."""
    command: list[str] = []
    for line in text.splitlines():
        goes_on = command and (command[-1].endswith("\\") or line[:1] in (" ", "}") or _in_here_document(command))
        if command and not goes_on:
            yield "\n".join(command)
            command = []
        if line.strip() and (goes_on or not line.startswith("#")):
            command.append(line)
    if command:
        yield "\n".join(command)


def _in_here_document(command: list[str]) -> bool:
    found = re.search(r"<<'?(\w+)'?", command[0])
    return found is not None and found[1] not in command[1:]


def _extended(command: str, block: Block) -> str:
    return f"{command} {block.extra}" if block.extra and command.startswith("extauthz ") else command


def matches(shown: tuple[str, ...], printed: str) -> bool:
    """Whether a page shows what was printed: `...` alone on a line is any lines, within a line any text."""
    pattern = "".join(
        r"(?:[^\n]*\n)*?" if line.strip() == ANY else ".*?".join(map(re.escape, line.rstrip().split(ANY))) + "\n"
        for line in shown
    )
    text = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, text) is not None


def run(page: Page, directory: Path, command_server: Path | None) -> Iterator[Done]:
    """Write the page's files and run its commands in their order; what was started in the background ends with it."""
    home = directory / "page"
    home.mkdir()
    with _shell(home, _environment(directory, home, command_server)) as shell:
        for block in page.blocks:
            if block.file:
                path = home / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text + "\n")
            elif block.language in RUN and "no-run" not in block.flags:
                for step in steps(block):
                    if not step.command.startswith(MADE):
                        yield shell.run(step)


class _Shell:
    def __init__(self, process: subprocess.Popen[str], status: int, home: Path) -> None:
        self._process = process
        self._status_pipe = status
        self._last = 0
        self._number = 0
        self._home = home

    def run(self, step: Step) -> Done:
        """Run a command in the shell; in the background until it prints what is shown, or that it is ready."""
        self._number += 1
        output = self._home.parent / f"output-{self._number}"
        if step.background:
            self._tell(f"{{\n{step.command}\n}} >{output} 2>&1 </dev/null &\necho 0 >&{_STATUS_PIPE}\n")
            status = self._answer(step)
            return self._wait(step, output, status)
        # `$?` of the command before is there for this one.
        group = f"{{\n{step.command}\n}} >{output} 2>&1 </dev/null"
        self._tell(f"(exit {self._last}); {group}; echo $? >&{_STATUS_PIPE}\n")
        self._last = self._answer(step)
        return Done(step, self._last, output.read_text(errors="replace"))

    def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _answer(self, step: Step) -> int:
        ready, _, _ = select.select([self._status_pipe], [], [], COMMAND_SECONDS)
        answer = os.read(self._status_pipe, 16) if ready else b""
        if not answer:
            raise AssertionError(f"{step.block}: no end within {COMMAND_SECONDS} s: {step.command}")
        return int(answer)

    @staticmethod
    def _wait(step: Step, output: Path, status: int) -> Done:
        ready = _READY.get(step.command.split()[0], "")
        end = time.monotonic() + READY_SECONDS
        while True:
            printed = output.read_text(errors="replace") if output.exists() else ""
            done = Done(step, status, printed)
            if (step.shown and not done.complaint()) or (not step.shown and ready in printed):
                return done if step.shown else Done(step, status, "")
            if time.monotonic() > end:
                return Done(step, NOT_FOUND, printed)
            time.sleep(0.02)


@contextmanager
def _shell(home: Path, environment: dict[str, str]) -> Iterator[_Shell]:
    reading, writing = os.pipe()
    # The shell has the status pipe under one fixed number, whatever the tests have open.
    move = f"exec {_STATUS_PIPE}>&{writing} {writing}>&-" if writing != _STATUS_PIPE else ":"
    process = subprocess.Popen(
        [*_NAMESPACE, "bash", "-c", f"{move}; {_LOOPBACK}; exec bash --norc --noprofile -s"],
        cwd=home,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        pass_fds=[writing],
        start_new_session=True,
    )
    os.close(writing)
    try:
        yield _Shell(process, reading, home)
    finally:
        _end(process)
        os.close(reading)


def _end(process: subprocess.Popen[str]) -> None:
    """End the shell and everything that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


def can_isolate() -> bool:
    """Whether pages can have a network of their own here, and the programs that they call."""
    if not all(map(shutil.which, PROGRAMS)):
        return False
    return subprocess.run([*_NAMESPACE, "bash", "-c", _LOOPBACK], capture_output=True, check=False).returncode == 0


def _environment(directory: Path, home: Path, command_server: Path | None) -> dict[str, str]:
    programs = directory / "programs"
    programs.mkdir()
    shim = programs / "extauthz"
    client = shlex.join([sys.executable, "-IS", str(ROOT / "tests/docs/doc_command.py")])
    # A path may be too long for a `#!` line.
    shim.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
    shim.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EXTAUTHZ_", "OTEL_"))}
    return kept | {
        "PATH": f"{programs}:{BIN}:{kept.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(home),
        "NO_COLOR": "1",
        "COLUMNS": "80",
        "TERM": "dumb",
        "DOCS_COMMAND_SERVER": str(command_server or ""),
        "DOCS_REAL_COMMAND": str(BIN / "extauthz"),
        "DOCS_SHARED_COMMANDS": " ".join(COMMANDS),
    }


def _show(path: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for done in run(read(Path(path).resolve()), Path(directory), None):
            print(f"--- {done.step.block} [{done.status}]\n$ {done.step.command}\n{done.output}", end="")
            if complaint := done.complaint():
                print("*** DIFFERS", complaint if done.step.background else "")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        _show(name)
