"""Several worker processes: their addresses, crashes, signals, reloads, and counts that add up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

Start = Callable[..., Any]
Replace = Callable[[Path, str], None]


@pytest.fixture
def start(serve: Start, policy_file: Path) -> Start:
    """Starts two workers."""

    def start(*arguments: object, **more: Any) -> Any:
        return serve("--policy", policy_file, "--workers", "2", *arguments, **more)

    return start


def pids(server: Any) -> list[int]:
    return [worker["pid"] for worker in server.page("/policies")["workers"]]


def counted(server: Any, denials: int) -> None:
    """Wait until so many were counted: what a worker that is busy counted last may be shown in the meantime."""
    server.wait_until(lambda: server.metric("decisions_total", decision="deny") == denials)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_each_worker_has_a_unix_socket_of_its_own(start: Start, tmp_path: Path, transport_name: str) -> None:
    server = start("--transport", transport_name, "--listen", f"unix:{tmp_path}/{{worker}}.sock")
    assert server.addresses == [f"unix:{tmp_path}/0.sock", f"unix:{tmp_path}/1.sock"]
    for address in server.addresses:
        assert server.check("/public", address=address) == 200
        assert server.check("/private", address=address) == 403
    assert server.terminate() == 0
    assert list(tmp_path.glob("*.sock")) == []


def test_each_worker_has_a_port_of_its_own(start: Start, loopback: str) -> None:
    # Two ports in a row cannot be had from the kernel; at this address only a server of all addresses is in the way.
    for first in range(20000, 20020, 2):
        server = start("--listen", f"{loopback}:{first}-{first + 1}", ready=False)
        server.wait_until(lambda server=server: server.process.poll() is not None or " ready on " in server.log, 60)
        if server.process.poll() is None:
            break
        server.ended()
        assert "in use" in server.log
    assert server.addresses == [f"{loopback}:{first}", f"{loopback}:{first + 1}"]
    assert [server.check("/private", address=address) for address in server.addresses] == [403, 403]


def test_workers_share_one_port_and_their_counts_add_up(start: Start, transport_name: str) -> None:
    server = start("--transport", transport_name)
    (address,) = server.addresses
    options = (("grpc.use_local_subchannel_pool", 1),)
    for _ in range(20):
        with grpc.insecure_channel(address, options) as channel:
            server._channels[address] = channel
            assert server.check("/private") == 403
            del server._channels[address]
    counted(server, 20)
    assert server.metric("workers") == 2
    server.wait_until(lambda: server.metric("policies", kind="AuthorizationPolicy") == 1)


def test_a_killed_worker_is_replaced_and_its_counts_stay(start: Start, tmp_path: Path, transport_name: str) -> None:
    server = start("--transport", transport_name, "--listen", f"unix:{tmp_path}/{{worker}}.sock")
    for address in server.addresses * 5:
        server.check("/private", address=address)
    counted(server, 10)
    before = pids(server)
    os.kill(before[0], signal.SIGKILL)
    server.wait_until(lambda: server.metric("worker_restarts_total") == 1)
    after = pids(server)
    assert after[0] != before[0]
    assert after[1] == before[1]
    server.wait_until(lambda: f"worker 0 (pid {before[0]}) was ended by SIGKILL" in server.log)
    server.wait_until(lambda: server.metric("workers") == 2)
    server.hang_up()  # the connection to the worker that is gone
    for address in server.addresses:
        assert server.check("/private", address=address) == 403
    counted(server, 12)


def test_the_start_time_is_that_of_the_parent_whatever_becomes_of_workers(start: Start) -> None:
    server = start()

    def began() -> str:
        (line,) = (line for line in server.admin("/metrics")[1].splitlines() if line.startswith("process_start_time"))
        return line

    first = began()
    for restarts, pid in enumerate(pids(server), 1):
        os.kill(pid, signal.SIGKILL)
        server.wait_until(lambda restarts=restarts: server.metric("worker_restarts_total") == restarts)
    assert began() == first


def test_a_worker_that_dies_again_and_again_is_replaced_ever_more_slowly(start: Start) -> None:
    server = start()
    for restarts in range(1, 4):
        began = time.monotonic()
        os.kill(pids(server)[1], signal.SIGKILL)
        server.wait_until(lambda restarts=restarts: server.metric("worker_restarts_total") == restarts, 60)
        assert time.monotonic() - began > 0.1 * 2 ** (restarts - 1)


def test_sigterm_to_one_worker_drains_it_and_it_is_replaced(start: Start, tmp_path: Path, transport_name: str) -> None:
    server = start("--transport", transport_name, "--listen", f"unix:{tmp_path}/{{worker}}.sock")
    worker = pids(server)[0]
    for _ in range(7):
        server.check("/private", address=server.addresses[0])
    os.kill(worker, signal.SIGTERM)
    server.wait_until(lambda: server.metric("worker_restarts_total") == 1)
    server.wait_until(lambda: "ended with status 0" in server.log)
    # It tells what it has counted before it ends, though nobody has looked since.
    counted(server, 7)


def test_all_workers_reload_or_none(
    start: Start, policy_file: Path, story: Any, tmp_path: Path, replace: Replace
) -> None:
    server = start("--listen", f"unix:{tmp_path}/{{worker}}.sock")

    def everywhere(path: str) -> set[int]:
        return {server.check(path, address=address) for address in server.addresses}

    replace(policy_file, "kind: [broken")
    server.wait_until(lambda: server.metric("policy_reload_total", result="error") == 1)
    assert everywhere("/public") == {200}
    replace(policy_file, story.policies(excluded="/new"))
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") == 1)
    assert everywhere("/new") == {200}
    assert everywhere("/public") == {403}
    server.process.send_signal(signal.SIGHUP)
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") == 2)


def test_when_the_parent_ends_no_worker_stays(start: Start) -> None:
    server = start()
    workers = pids(server)
    assert server.terminate() == 0
    assert not any(map(alive, workers))


def test_when_the_parent_is_killed_no_worker_stays(start: Start) -> None:
    server = start()
    workers = pids(server)
    server.process.kill()
    server.wait_until(lambda: not any(map(alive, workers)))


def test_a_second_signal_ends_all_workers_at_once(start: Start) -> None:
    server = start("--drain", "600")
    workers = pids(server)
    server.process.terminate()
    server.wait_until(lambda: "draining" in server.log)
    server.process.terminate()
    assert server.ended() == 128 + signal.SIGTERM
    assert not any(map(alive, workers))


def test_a_worker_that_hangs_does_not_hang_the_metrics(start: Start) -> None:
    server = start()
    server.check("/private")
    counted(server, 1)
    hanging = pids(server)
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    try:
        # Whoever waits for the workers waits for ever, and the page is given up on.
        assert server.metric("decisions_total", decision="deny") == 1
    finally:
        for pid in hanging:
            os.kill(pid, signal.SIGCONT)


def test_bad_policies_are_reported_once_and_nothing_listens(start: Start, policy_file: Path, tmp_path: Path) -> None:
    policy_file.write_text("kind: [broken")
    server = start("--listen", f"unix:{tmp_path}/{{worker}}.sock", ready=False)
    assert server.ended() == 2
    assert server.log.count(f"{policy_file}:") == 1
    assert "Traceback" not in server.log
    assert list(tmp_path.glob("*.sock")) == []


def test_a_shared_port_that_another_server_has_is_refused(start: Start) -> None:
    server = start()
    other = start("--listen", server.addresses[0], ready=False)
    assert other.ended() == 2
    assert "in use by another process" in other.log
    assert server.check("/public") == 200


def test_policies_from_standard_input_reach_all_workers(start: Start, policy_file: Path, serve: Start) -> None:
    with policy_file.open() as stdin:
        server = serve("--policy", "-", "--workers", "2", stdin=stdin)
    for _ in range(5):
        assert server.check("/private") == 403


def test_workers_are_fresh_processes_even_where_threads_and_grpc_run(policy_file: Path, tmp_path: Path) -> None:
    script = f"""
import threading, time, grpc
from concurrent.futures import ThreadPoolExecutor
from extauthz.server.options import ServeOptions
from extauthz.server.workers import Workers
server = grpc.server(ThreadPoolExecutor(4)); server.add_insecure_port("127.0.0.1:0"); server.start()
for _ in range(8):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
workers = Workers(ServeOptions(policy=({str(policy_file)!r},), listen=("unix:{tmp_path}/{{worker}}",), workers=2))
workers.load()
addresses = workers.open()
for address in addresses:
    channel = grpc.insecure_channel(str(address))
    print(len(channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")(b"", timeout=60)))
pids = [worker["pid"] for worker in workers.describe()["workers"]]
print(*(open(f"/proc/{{pid}}/cmdline").read().split(chr(0))[3] for pid in pids))
workers.withdraw()
print(workers.finish(60))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110, check=False)
    lines = done.stdout.splitlines()
    assert lines[2:] == ["extauthz.server.worker extauthz.server.worker", "True"], done.stderr
    assert all(int(length) > 0 for length in lines[:2])
