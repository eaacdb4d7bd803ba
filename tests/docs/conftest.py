"""What the tests of the documentation share: where it is, and a server that runs short commands quickly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The helpers of this folder are plain modules: importlib mode leaves sys.path alone.
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def command_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a process that has the command line's modules and runs commands in forks of itself."""
    socket = tmp_path_factory.mktemp("commands") / "socket"
    server = subprocess.Popen(
        [sys.executable, str(HERE / "doc_command_server.py"), str(socket)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    yield socket
    server.kill()
    server.wait()
    server.stdout.close()
