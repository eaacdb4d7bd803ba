"""The package needs nothing of its surroundings: no network to be imported, no home, no user, nothing to write to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-B", "-m", "extauthz"]
POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: get, namespace: foo}
spec:
  rules:
  - to: [{operation: {methods: [GET]}}]
"""

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
PROCESSES = ("subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system")
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.chmod", "os.chown", "os.symlink")

def watch(event, arguments):
    # The plots of load tests import matplotlib, which looks for a directory of its own.
    if arguments and "matplotlib" in str(arguments[0]):
        return
    if event in NETWORK + PROCESSES + CHANGES:
        raise RuntimeError(f"{event} {arguments} at import")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise RuntimeError(f"{arguments[0]} opened for writing at import")

sys.addaudithook(watch)
import extauthz
names = [found.name for found in pkgutil.walk_packages(extauthz.__path__, "extauthz.") if "__main__" not in found.name]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def confined(*command: str, uid: int) -> list[str]:
    """A command under a user that nobody knows, with everything read-only, no network and no environment."""
    inner = ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}", "env", "-i", *command]
    script = 'mount -o remount,bind,ro / && ip link set lo up && cd / && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", script, "sh", *inner]


def can_confine() -> bool:
    if not all(shutil.which(name) for name in ("unshare", "mount", "ip")):
        return False
    return subprocess.run(confined("true", uid=65534), capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not can_confine(), reason="user and mount namespaces are not permitted here (unshare --map-root-user --mount --net)"
)


def test_no_module_uses_the_network_starts_a_process_or_writes_when_it_is_imported():
    done = subprocess.run(
        [sys.executable, "-B", "-W", "ignore", "-c", IMPORT_EVERYTHING],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


@needs_namespaces
def test_the_confinement_confines(tmp_path):
    done = subprocess.run(
        confined("touch", str(tmp_path / "x"), uid=54321), capture_output=True, text=True, check=False
    )
    assert "Read-only file system" in done.stderr
    done = subprocess.run(confined("id", "-u", uid=54321), capture_output=True, text=True, check=False)
    assert done.stdout == "54321\n"


@needs_namespaces
def test_commands_run_without_a_home_a_user_or_anything_to_write_to():
    command = confined(*PROGRAM, "check", "--policy", "-", "--method", "GET", "/", uid=65534)
    done = subprocess.run(command, input=POLICY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "allow" in done.stdout.lower()


@needs_namespaces
@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_the_server_runs_as_any_user_on_a_read_only_root(tmp_path, transport):
    if transport == "native":
        pytest.importorskip("extauthz.server.native._native")
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    command = [*PROGRAM, "serve", "--policy", str(policy), "--listen", "127.0.0.1:0", "--transport", transport]
    server = subprocess.Popen(
        confined(*command, "--admin", "off", uid=54321), stderr=subprocess.PIPE, text=True, cwd=Path("/")
    )
    assert server.stderr is not None
    lines = []
    for line in server.stderr:
        lines.append(line)
        if "ready" in line:
            break
    server.send_signal(signal.SIGTERM)
    lines.append(server.communicate(timeout=60)[1])
    assert server.returncode == 0, "".join(lines)
    assert "ready" in "".join(lines), "".join(lines)
