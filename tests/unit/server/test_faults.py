"""What must not take the service down: full disks, missing files and descriptors, odd users, clocks that jump."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from extauthz.checkapi.build import check_request
from extauthz.protos.external_auth_pb2 import CheckResponse
from extauthz.server.options import ServeOptions
from extauthz.server.service import Service
from extauthz.server.transport import CHECK_METHOD

Start = Callable[..., Any]
Replace = Callable[[Path, str], None]


def test_a_decision_log_that_nobody_reads_holds_up_no_call(
    serve: Start, policy_file: Path, tmp_path: Path, transport_name: str
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # opened, and never read
    server = serve("--policy", policy_file, "--decision-log", fifo, "--transport", transport_name)
    began = time.monotonic()
    # Whoever waits for the reader waits for ever.
    for _ in range(1500):
        assert server.check("/private", x_request_id="x" * 200) == 403
    assert time.monotonic() - began < 60
    assert server.terminate() == 0
    os.close(reader)


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/decisions"])
def test_a_decision_log_that_cannot_be_written_drops_lines_and_counts_them(
    serve: Start, policy_file: Path, path: str
) -> None:
    server = serve("--policy", policy_file, "--decision-log", path)
    assert server.check("/private") == 403
    server.wait_until(lambda: server.metric("decision_log_lines_total", result="dropped") == 1)
    assert server.check("/public") == 200


def test_a_decision_log_on_standard_output(serve: Start, policy_file: Path, tmp_path: Path) -> None:
    with (tmp_path / "stdout").open("w") as stdout:
        server = serve("--policy", policy_file, "--decision-log", "-", "--workers", "2", stdout=stdout)
        server.check("/private")
        server.check("/public")
        # Before the end, which gives a log only so much time.
        server.wait_until(lambda: server.metric("decision_log_lines_total", result="written") == 2)
        assert server.terminate() == 0
    lines = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
    assert sorted(line["extauthz.decision"] for line in lines) == ["allow", "deny"]


def test_a_closed_standard_error_holds_up_nothing(serve: Start, policy_file: Path, replace: Replace) -> None:
    server = serve("--policy", policy_file, "--log-level", "debug")
    assert server.process.stderr is not None
    # Not by closing the descriptor: its number would be another file's while a thread reads from it.
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), server.process.stderr.fileno())
    # A read that had begun holds the pipe open until there is a line.
    server.process.send_signal(signal.SIGHUP)
    server._reader.join(30)
    assert not server._reader.is_alive()
    replace(policy_file, "kind: [broken")
    server.wait_until(lambda: server.metric("policy_reload_total", result="error") == 1)
    assert server.check("/private") == 403
    assert server.terminate() == 0


def test_running_out_of_file_descriptors_is_survived(serve: Start, policy_file: Path, transport_name: str) -> None:
    limit = 64
    server = serve(
        *("--policy", policy_file, "--transport", transport_name),
        prefix=("sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh"),
    )
    assert server.check("/private") == 403
    said = len(server.lines)
    host, _, port = server.addresses[0].rpartition(":")
    connections = [socket.create_connection((host, int(port)), timeout=30) for _ in range(limit + 20)]
    time.sleep(0.3)
    assert server.check("/private") == 403  # over the connection that is open
    before = _cpu_seconds(server.process.pid)
    time.sleep(1.0)
    assert _cpu_seconds(server.process.pid) - before < 0.5, "it spins"
    assert len(server.lines) - said < 10, server.log
    for connection in connections:
        connection.close()
    time.sleep(0.5)
    server.hang_up()
    assert server.check("/private") == 403
    assert server.metric("decisions_total", decision="deny") == 3


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user, with setpriv"
)
def test_it_runs_as_any_user_without_a_home_and_without_a_place_to_write(
    serve: Start, policy_file: Path, replace: Replace
) -> None:
    # May read everything, since this Python may be anywhere, and write nothing.
    reader = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search")
    server = serve(
        *("--policy", policy_file, "--workers", "2"),
        prefix=(*reader, "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"),
        cwd="/proc",
        environment={"HOME": "/nonexistent"},
    )
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert "Uid:\t65534" in status
    assert server.check("/private") == 403
    replace(policy_file, policy_file.read_text() + "# changed\n")
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") == 1)
    assert server.terminate() == 0


def test_a_clock_that_jumps_moves_what_depends_on_it_and_nothing_else(
    policy_file: Path, story: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = [0.0]
    # The wall clock of the decision: gRPC's client in this process would miss its deadlines by the others.
    monkeypatch.setattr("extauthz.authorizer.time", lambda: time.time() + offset[0])
    options = ServeOptions(policy=(str(policy_file),), listen=(f"unix:{tmp_path}/s",), transport="grpcio")
    service = Service(options, options.addresses)
    service.load()
    (address,) = service.open()
    headers = [("authorization", f"Bearer {story.token}")]
    message = check_request("GET", "/private", headers, host="example.com")
    statuses = []
    with grpc.insecure_channel(str(address)) as channel:
        # A day on, back again, a year back (exp is far away then), and back to now.
        for jump in (0.0, 86400.0, 0.0, -365 * 86400.0, 0.0):
            offset[0] = jump
            answer = channel.unary_unary(CHECK_METHOD)(message, timeout=30, wait_for_ready=True)
            statuses.append(CheckResponse.FromString(answer).denied_response.status.code)
    assert statuses == [0, 401, 0, 0, 0]
    assert service.snapshot()["check_duration_seconds"]["sum",] < 3600
    offset[0] = 86400.0
    began = time.monotonic()
    service.withdraw()
    assert service.finish(90.0)
    assert time.monotonic() - began < 45


def test_many_scrapes_at_once_hold_up_no_call(serve: Start, policy_file: Path, transport_name: str) -> None:
    server = serve("--policy", policy_file, "--transport", transport_name)
    pages = [threading.Thread(target=server.admin, args=("/metrics",)) for _ in range(40)]
    for page in pages:
        page.start()
    for _ in range(50):
        assert server.check("/private") == 403
    for page in pages:
        page.join()
    assert server.admin("/healthz")[0] == 200
