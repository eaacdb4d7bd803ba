"""Our own server as a child process: started, waited for, and ended whatever happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from extauthz.errors import ExtAuthzError

START_SECONDS = 30.0
STOP_SECONDS = 10.0

_ADDRESS = re.compile(r"unix:\S+?(?=[,\s]|$)|\[[0-9a-fA-F:]+\]:\d+|[0-9.]+:\d+")


class ServiceError(ExtAuthzError):
    """The server did not get ready; the text is what it said."""


@dataclass(slots=True)
class Service:
    """A running `extauthz serve` (or `null`): its process, where it listens, and what it has said so far."""

    process: subprocess.Popen[str]
    addresses: tuple[str, ...] = ()
    lines: list[str] = field(default_factory=list)


@contextmanager
def run_service(
    arguments: Sequence[str], *, prefix: Sequence[str] = (), program: Sequence[str] = (sys.executable, "-m", "extauthz")
) -> Iterator[Service]:
    """Run `extauthz ARGUMENTS` until the block is left; yields once its ready line is out. Raises ServiceError.

    `prefix` is put before the command (`taskset -c 0`); `program` is another program that prints such a line.
    """
    # Options come from the arguments alone, not from the environment of whoever runs a demo or a test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EXTAUTHZ_")}
    process = subprocess.Popen(
        [*prefix, *program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
    )
    service = Service(process)
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(service, ready), daemon=True)
    reader.start()
    try:
        if not ready.wait(START_SECONDS) or not service.addresses:
            raise ServiceError("the server did not get ready:\n" + "".join(service.lines[-20:]))
        yield service
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(STOP_SECONDS)


def _read(service: Service, ready: threading.Event) -> None:
    """Keep what the server says, and note its addresses when it is ready. Reads on, so that the pipe never fills up."""
    assert service.process.stderr is not None
    with service.process.stderr as lines:
        for line in lines:
            service.lines.append(line)
            if not ready.is_set() and re.search(r"\bready\b", line):
                service.addresses = tuple(_ADDRESS.findall(line.partition("ready")[2]))
                ready.set()
    ready.set()
