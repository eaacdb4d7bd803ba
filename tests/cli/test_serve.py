"""`serve`, `null` and `healthcheck` through their entry point: options, variables, refusals, exit statuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from extauthz.protos.external_auth_pb2 import CheckResponse
from extauthz.server.transport import CHECK_METHOD

ALLOW_NOTHING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: shop}
spec: {}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy that denies everything."""
    path = tmp_path / "policy.yaml"
    path.write_text(ALLOW_NOTHING)
    return path


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EXTAUTHZ_")} | variables


def refused(*arguments: object, **variables: str) -> list[str]:
    """What `serve` says when it ends with status 2; never a stack trace."""
    # Would be waited for much longer than the end is here.
    variables.setdefault("EXTAUTHZ_DRAIN", "600")
    done = subprocess.run(
        [sys.executable, "-m", "extauthz", "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert " ready on " not in done.stderr
    return [line for line in done.stderr.splitlines() if not re.match(r"\d{4}-.* INFO ", line)]


@contextmanager
def running(command: str, *arguments: object, **variables: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A server and the addresses of its ready line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "extauthz", command, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if " ready on " in line:
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield process, line.strip().partition(" ready on ")[2].split(", ")
                return
        pytest.fail("".join(said))
    finally:
        process.kill()
        process.wait()


def status(address: str, message: bytes = b"") -> int:
    with grpc.insecure_channel(address) as channel:
        answer = channel.unary_unary(CHECK_METHOD)(message, timeout=60, wait_for_ready=True)
    return int(CheckResponse.FromString(answer).status.code)


def test_every_unusable_option_is_listed_in_one_go(tmp_path: Path) -> None:
    said = refused(
        *("--listen", "nonsense", "--listen", "host:99999", "--listen", "unix:", "--listen-mode", "rwx"),
        *("--admin", "here", "--log-format", "xml", "--log-level", "loud", "--jwt-algorithms", "none"),
        *("--tls-cert", tmp_path / "cert.pem", "--jwks-egress", "closed", "--resolve", "x"),
    )
    text = "\n".join(said)
    for option in (
        "--policy: name at least one",
        "--listen 'nonsense': write HOST:PORT",
        "--listen 'host:99999': a port is at most 65535",
        "--listen 'unix:': a path must follow",
        "--listen-mode 'rwx': write three octal digits",
        "--admin 'here': write HOST:PORT",
        "--log-format 'xml': use text or json",
        "--log-level 'loud': use one of debug",
        "--jwt-algorithms 'none': use all or rsa",
        "--tls-cert and --tls-key: TLS needs both",
        "--jwks-egress 'closed': use open or mesh",
        "--resolve 'x': write HOST=ADDRESS",
    ):
        assert text.count(option) == 1, f"{option} in:\n{text}"


def test_every_problem_of_the_policies_is_listed_and_nothing_listens(tmp_path: Path) -> None:
    for name, text in (("a", "kind: [broken"), ("b", "kind: {also: broken")):
        (tmp_path / f"{name}.yaml").write_text(text)
    socket_path = tmp_path / "s"
    said = "\n".join(refused("--policy", tmp_path, "--listen", f"unix:{socket_path}", "--admin", "off"))
    assert f"{tmp_path}/a.yaml:" in said
    assert f"{tmp_path}/b.yaml:" in said
    assert not socket_path.exists()


@pytest.mark.parametrize("kind", ["missing", "empty directory"])
def test_policies_that_are_not_there_are_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "missing" if kind == "missing" else tmp_path
    (line,) = refused("--policy", path, "--admin", "off", "--listen", "127.0.0.1:0")
    assert str(path) in line


def test_an_address_in_use_is_one_clear_line(policy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (line,) = refused("--policy", policy, "--listen", address, "--admin", "off")
        assert line == f"error: --listen {address}: in use by another process: stop it, or choose another address " + (
            "(port 0 picks a free port)"
        )
        (line,) = refused("--policy", policy, "--listen", "127.0.0.1:0", "--admin", address)
        assert line.startswith(f"error: --admin {address}: in use by another process")


def test_unix_sockets_that_cannot_be_had_are_one_clear_line(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path, complaint in (
        (tmp_path / "file", "something that is not a socket is there"),
        (tmp_path / ("x" * 120), "a Unix socket's may have 107"),
        (tmp_path / "missing" / "s", "does not exist"),
        (Path("/proc/s"), ""),
    ):
        (line,) = refused("--policy", policy, "--listen", f"unix:{path}", "--admin", "off")
        assert line.startswith(f"error: --listen unix:{path}: ")
        assert complaint in line
    assert (tmp_path / "file").read_text() == "precious"


def test_tls_files_that_cannot_be_used_are_one_clear_line(policy: Path) -> None:
    (line,) = refused("--policy", policy, "--admin", "off", "--tls-cert", "/no.crt", "--tls-key", "/no.key")
    assert line == "error: --tls-key /no.key: No such file or directory"
    (line,) = refused(
        *("--policy", policy, "--admin", "off", "--tls-cert", "/no.crt", "--tls-key", "/no.key"),
        *("--transport", "native"),
    )
    assert "--transport native does not speak TLS" in line


def test_workers_that_do_not_fit_the_addresses_are_refused(policy: Path) -> None:
    (line,) = refused("--policy", policy, "--workers", "3", "--listen", "127.0.0.1:9191-9192")
    assert "needs --workers 2, not 3" in line
    (line,) = refused("--policy", policy, "--workers", "3", "--listen", "unix:/run/s")
    assert "put {worker} into the path" in line


def test_a_port_range_that_is_in_use_ends_all_workers(policy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(
            "--policy", policy, "--workers", "2", "--listen", f"127.0.0.1:{port - 1}-{port}", "--admin", "off"
        )
    assert any("in use by another process" in line for line in said)


def test_options_come_from_variables_too(policy: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    variables = {
        "EXTAUTHZ_POLICY": str(policy),
        "EXTAUTHZ_WORKLOAD": "elsewhere/app=web",
        "EXTAUTHZ_LISTEN": f"unix:{path} 127.0.0.1:0",
        "EXTAUTHZ_LISTEN_MODE": "0600",
        "EXTAUTHZ_ADMIN": "off",
        "EXTAUTHZ_TRANSPORT": "grpcio",
        "EXTAUTHZ_DRAIN": "0",
    }
    with running("serve", **variables) as (process, addresses):
        assert addresses[0] == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        process.terminate()
        assert process.wait(60) == 0


def test_every_option_of_serve_has_a_variable() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "extauthz", "serve", "--help"],
        capture_output=True,
        text=True,
        env=environment(COLUMNS="200", NO_COLOR="1"),
        timeout=60,
        check=True,
    )
    options = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", done.stdout)) - {"--help"}
    options = {option for option in options if not option.startswith("--no-")}
    variables = set(re.findall(r"EXTAUTHZ_[A-Z_]+", done.stdout))
    assert variables >= {"EXTAUTHZ_" + option[2:].upper().replace("-", "_") for option in options} - {"EXTAUTHZ_"}
    assert len(options) >= 35


def test_only_the_policies_of_the_workload_apply(policy: Path) -> None:
    from extauthz.checkapi.build import check_request

    message = check_request("GET", "/")
    assert message is not None
    for workload, code in (("shop/app=web", 7), ("elsewhere/app=web", 0)):
        given = ("--policy", policy, "--workload", workload, "--listen", "127.0.0.1:0", "--admin", "off")
        with running("serve", *given) as (_, addresses):
            assert status(addresses[0], message) == code


def test_null_allows_everything_and_says_so() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "extauthz", "null", "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr is not None
    said = [process.stderr.readline()]
    while " ready on " not in said[-1]:
        said.append(process.stderr.readline())
    address = said[-1].strip().rpartition(" ")[2]
    assert status(address) == 0
    assert status(address, b"garbage \xff") == 0
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert any("EVERY request is ALLOWED" in line for line in said)
    process.stderr.close()


def test_null_takes_no_policies(policy: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "extauthz", "null", "--policy", str(policy)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2


def test_healthcheck_of_nothing_is_negative(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "extauthz", "healthcheck", "--listen", f"unix:{tmp_path}/s", "--timeout", "30"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"unix:{tmp_path}/s: UNAVAILABLE")
    assert len(done.stderr.splitlines()) == 1
