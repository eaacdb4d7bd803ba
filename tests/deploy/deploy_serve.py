"""Runs `extauthz serve` the way a container's manifest says, with its mounts in a temporary directory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import urlopen

EXTAUTHZ = (sys.executable, "-m", "extauthz")


class Served:
    """A server that has said ready."""

    def __init__(self, process: subprocess.Popen[str], log: Path, environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment
        self._log = log

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def address(self) -> str:
        """Where it answers calls."""
        return self._find(r"ready on ([^\s\"]+)")

    def page(self, path: str) -> str:
        """A page of its admin port."""
        address = self._find(r"admin port on ([\w.:]+)")
        with urlopen(f"http://{address}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def healthcheck(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Ask it for its health, where it answers."""
        listening = {**self.environment, "EXTAUTHZ_LISTEN": self.address}
        return subprocess.run(
            [*(command or EXTAUTHZ), "healthcheck"],
            env=listening,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.log)
        assert found, self.log
        return found[1]


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without what would configure the program, and with `variables`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EXTAUTHZ_")} | variables


@contextmanager
def serving(
    arguments: list[str], environment: Mapping[str, str], log: Path, command: tuple[str, ...] = EXTAUTHZ, **popen: Any
) -> Iterator[Served]:
    """Run the program until it says ready, and end it afterwards."""
    full = clean_environment(**environment)
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *arguments], env=full, stdout=output, stderr=subprocess.STDOUT, text=True, **popen
        )
    try:
        deadline = time.monotonic() + 60
        while " ready on " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield Served(process, log, full)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


@cache
def serve_variables() -> frozenset[str]:
    """Every variable that `serve` reads, as its help names them."""
    done = subprocess.run(
        [*EXTAUTHZ, "serve", "--help"], capture_output=True, text=True, env=clean_environment(COLUMNS="200"), check=True
    )
    return frozenset(re.findall(r"EXTAUTHZ_[A-Z_]+", done.stdout))


@cache
def as_user(user: str, group: str) -> tuple[str, ...]:
    """A command that makes the one after it run as another user, without capabilities.

    Empty where that is not allowed, or where other users cannot reach the Python that runs the tests and its packages.
    """
    if os.getuid() or not shutil.which("setpriv"):
        return ()
    command = ("setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    works = subprocess.run([*command, sys.executable, "-c", "import grpc"], capture_output=True, cwd="/", check=False)
    return command if works.returncode == 0 else ()


def environment_of(container: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a container that have a fixed value."""
    return {entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry}


def moved(container: Mapping[str, Any], directory: Path) -> dict[str, str]:
    """The container's variables with every mounted path under `directory`, and with free ports."""
    variables = environment_of(container)
    for mount in container.get("volumeMounts", ()):
        place = directory / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        variables = {name: value.replace(mount["mountPath"], str(place)) for name, value in variables.items()}
    return {name: re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", value) for name, value in variables.items()}
