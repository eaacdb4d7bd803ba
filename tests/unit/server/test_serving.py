"""`serve` as a process: answers, reloads, drains, tells how it is."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from extauthz.minting import SigningKey
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz.server.transport import HEALTH_CHECK_METHOD

Start = Callable[..., Any]
Replace = Callable[[Path, str], None]


def health(server: Any) -> int:
    answer = server.call(b"", method=HEALTH_CHECK_METHOD)
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


def test_the_story_is_decided_on_every_address(
    serve: Start, policy_file: Path, story: Any, tmp_path: Path, transport_name: str
) -> None:
    unix = f"unix:{tmp_path}/s"
    server = serve("--policy", policy_file, "--listen", "127.0.0.1:0", "--listen", unix, "--transport", transport_name)
    assert server.addresses[1] == unix
    for address in server.addresses:
        assert server.check("/public", address=address) == 200
        assert server.check("/private", address=address) == 403
        assert server.check("/private", story.token, address=address) == 200
        assert server.check("/public", story.token + "x", address=address) == 401
    server.wait_until(lambda: f"transport {transport_name}: asked for" in server.log)


def test_metrics_tell_what_was_decided(serve: Start, policy_file: Path, story: Any, transport_name: str) -> None:
    server = serve("--policy", policy_file, "--transport", transport_name)
    token = story.token
    for _ in range(3):
        server.check("/private")
        server.check("/private", token)
    with pytest.raises(grpc.RpcError) as failure:
        server.call(b"\xff\xff\xff")
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.metric("decisions_total", decision="allow") == 3
    assert server.metric("decisions_total", decision="deny", reason=denied_by("exclude")) == 3
    assert server.metric("check_duration_seconds_count") == 6
    assert server.metric("check_errors_total", status="INVALID_ARGUMENT") == 1
    assert server.metric("token_cache_hits_total") == 2
    assert server.metric("token_cache_misses_total") == 1
    assert server.metric("policies", kind="AuthorizationPolicy") == 1
    assert server.metric("build_info", transport=transport_name) == 1
    server.wait_until(lambda: server.metric("grpc_in_flight") == 0)


def denied_by(policy: str) -> str:
    return f"rbac_access_denied_matched_policy[ns[istio-system]-policy[{policy}]-rule[0]]"


def test_the_admin_port_tells_what_is_loaded_and_no_secrets(serve: Start, policy_file: Path, story: Any) -> None:
    server = serve("--policy", policy_file)
    assert server.admin("/healthz") == (200, "ok\n")
    assert server.page("/readyz") == {"ready": True, "missing": []}
    page = server.page("/policies")
    assert [(policy["kind"], policy["name"]) for policy in page["policies"]] == [
        ("RequestAuthentication", "tokens"),
        ("AuthorizationPolicy", "exclude"),
    ]
    assert all(policy["file"] == str(policy_file) for policy in page["policies"])
    assert page["last_reload"] is None
    assert story.key.jwk()["n"] not in str(page)
    assert server.admin("/reload", "POST")[0] == 404


def test_the_admin_port_can_be_off(serve: Start, policy_file: Path) -> None:
    server = serve("--policy", policy_file, "--admin", "off")
    assert server.check("/public") == 200
    assert "admin port" not in server.log


def test_changed_files_are_loaded_and_broken_ones_change_nothing(
    serve: Start, policy_file: Path, story: Any, replace: Replace
) -> None:
    server = serve("--policy", policy_file.parent)
    assert (server.check("/public"), server.check("/new")) == (200, 403)
    replace(policy_file, "kind: [broken")
    server.wait_until(lambda: server.metric("policy_reload_total", result="error") == 1)
    assert (server.check("/public"), server.check("/new")) == (200, 403)
    last = server.page("/policies")["last_reload"]
    assert last["result"] == "error"
    assert last["problems"][0].startswith(f"{policy_file}:")
    server.wait_until(lambda: server.log.count("reload failed") == 1)
    replace(policy_file, story.policies(excluded="/new"))
    server.wait_until(lambda: server.check("/new") == 200)
    assert server.check("/public") == 403
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") == 1)


def test_sighup_and_the_admin_port_reload(serve: Start, policy_file: Path) -> None:
    server = serve("--policy", policy_file, "--admin-reload")
    server.process.send_signal(signal.SIGHUP)
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") == 1)
    status, body = server.admin("/reload", "POST")
    assert status == 200
    assert '"result": "success"' in body
    assert server.metric("policy_reload_total", result="success") == 2
    assert server.metric("decisions_total") == 0


def test_there_is_no_moment_without_policies(serve: Start, policy_file: Path, story: Any, transport_name: str) -> None:
    server = serve("--policy", policy_file, "--transport", transport_name)
    ended = threading.Event()
    seen: dict[int, int] = {}

    def ask() -> None:
        while not ended.is_set():
            status = server.check("/private")
            seen[status] = seen.get(status, 0) + 1

    def pause(seconds: float, calls: int = 15) -> None:
        before = sum(list(seen.values()))
        time.sleep(seconds)
        server.wait_until(lambda: sum(list(seen.values())) >= before + calls)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        text = policy_file.read_text()
        for round_ in range(4):
            with policy_file.open("w") as stream:  # in two steps
                stream.write(text[:50])
                stream.flush()
                pause(0.05)
                stream.write(text[50:])
            pause(0.2)
            policy_file.unlink()  # removed and made again
            pause(0.05)
            policy_file.write_text(text + f"# {round_}\n")
            pause(0.2)
        policy_file.write_text("")  # emptied, as by a slow writer
        server.wait_until(lambda: server.metric("policy_reload_total", result="error") >= 1)
        server.wait_until(lambda: "became empty, taken for a write in progress" in server.log)
    finally:
        ended.set()
        asking.join()
    assert set(seen) == {403}
    assert seen[403] > 100


def test_files_that_go_missing_leave_the_last_policies_in_force(serve: Start, policy_file: Path) -> None:
    server = serve("--policy", policy_file.parent)
    policy_file.unlink()
    policy_file.parent.rmdir()
    server.wait_until(lambda: server.metric("policy_reload_total", result="error") >= 1)
    assert (server.check("/public"), server.check("/private")) == (200, 403)


def test_a_reload_does_not_forget_what_was_counted(serve: Start, policy_file: Path, story: Any) -> None:
    server = serve("--policy", policy_file, "--admin-reload")
    server.check("/private", story.token)
    server.check("/private", story.token)
    for _ in range(3):
        assert server.admin("/reload", "POST")[0] == 200
    server.check("/private", story.token)
    assert server.metric("decisions_total", decision="allow") == 3
    assert server.metric("token_cache_hits_total") + server.metric("token_cache_misses_total") == 3


def test_policies_from_standard_input_survive_a_reload(serve: Start, policy_file: Path) -> None:
    with policy_file.open() as stdin:
        server = serve("--policy", "-", "--admin-reload", stdin=stdin)
    assert server.check("/private") == 403
    assert server.admin("/reload", "POST")[0] == 200
    assert server.check("/private") == 403


def test_sigterm_says_not_serving_and_answers_on(serve: Start, policy_file: Path, transport_name: str) -> None:
    server = serve("--policy", policy_file, "--drain", "600", "--transport", transport_name)
    assert health(server) == health_pb2.HealthCheckResponse.SERVING
    server.process.terminate()
    server.wait_until(lambda: health(server) == health_pb2.HealthCheckResponse.NOT_SERVING)
    for _ in range(20):
        assert server.check("/public") == 200
    assert server.admin("/readyz")[0] == 503
    assert server.process.poll() is None


def test_sigterm_ends_with_status_0_when_the_drain_is_over(
    serve: Start, policy_file: Path, transport_name: str
) -> None:
    server = serve("--policy", policy_file, "--drain", "2", "--transport", transport_name)
    assert server.check("/public") == 200
    began = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - began > 1.2 - 0.1, "not all of the time in which calls are still taken"
    assert "draining" in server.log
    assert "drained" in server.log


def test_a_second_signal_ends_at_once(serve: Start, policy_file: Path, transport_name: str) -> None:
    server = serve("--policy", policy_file, "--drain", "600", "--transport", transport_name)
    server.process.terminate()
    server.wait_until(lambda: "draining" in server.log)
    server.process.send_signal(signal.SIGINT)
    assert server.ended() == 128 + signal.SIGINT  # waits for much less than the drain


def test_messages_that_are_no_check_requests_end_with_a_status_and_the_server_lives(
    serve: Start, policy_file: Path, transport_name: str
) -> None:
    server = serve("--policy", policy_file, "--transport", transport_name)
    for message in (b"\x00", b"\xff" * 1000, random.Random(1).randbytes(5000), b"\x0a\xff\xff\xff\xff\x0f"):
        with pytest.raises(grpc.RpcError) as failure:
            server.call(message)
        assert failure.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
    assert server.check("/private", x_long="y" * (1 << 20)) == 403
    assert server.check("/private") == 403


def test_healthcheck_asks_the_addresses_of_the_environment(serve: Start, policy_file: Path, loopback: str) -> None:
    server = serve("--policy", policy_file, "--drain", "600", "--listen", f"{loopback}:0")
    environment = {**os.environ, "EXTAUTHZ_LISTEN": " ".join(server.addresses), "EXTAUTHZ_TIMEOUT": "30"}

    def ask() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "extauthz", "healthcheck"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ask().returncode == 0
    server.process.terminate()
    server.wait_until(lambda: "draining" in server.log)
    done = ask()
    assert (done.returncode, done.stderr.strip()) == (1, f"{server.addresses[0]}: NOT_SERVING")
    server.process.kill()
    server.process.wait()
    done = ask()
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stderr


def test_memory_returns_after_large_bodies(serve: Start, policy_file: Path, transport_name: str) -> None:
    def resident() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    server = serve("--policy", policy_file, "--transport", transport_name)
    body = b"x" * (8 << 20)
    message = request_with_body(body)
    for _ in range(5):
        assert denied(server.call(message, seconds=60))
    before = resident()
    for _ in range(100):
        assert denied(server.call(message, seconds=60))
    assert resident() - before < 64 * 1024


def request_with_body(body: bytes) -> bytes:
    """A CheckRequest about POST /private with `raw_body`, a field that our own messages pass over."""
    request = CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host = "POST", "/private", "example.com"
    # Messages that stand one after the other are read as one: attributes.request.http.raw_body is 1.4.2.12.
    encoded = body
    for number in (12, 2, 4, 1):
        encoded = bytes([number << 3 | 2]) + varint(len(encoded)) + encoded
    return bytes(request.SerializeToString()) + encoded


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def denied(answer: bytes) -> bool:
    return int(CheckResponse.FromString(answer).denied_response.status.code) == 403


def test_no_request_makes_a_new_series(serve: Start, policy_file: Path, story: Any) -> None:
    def series() -> set[str]:
        lines = server.admin("/metrics")[1].splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    server = serve("--policy", policy_file)
    for token in ("", story.token, "not.a.token", "x"):
        server.check("/private", token)
    expected = series()
    strangers = [SigningKey.generate("HS256", f"key-{number}") for number in range(20)]
    for number in range(200):
        token = strangers[number % 20].token({"iss": f"issuer-{number}", "sub": f"subject-{number}"})
        server.check(f"/path-{number}", token, x_request_id=str(number))
        server.call(request_for_host(f"host-{number}"))
    # The one status that these tokens are refused with, and no more.
    assert len(series() - expected) <= 1


def request_for_host(host: str) -> bytes:
    request = CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host = "GET", "/private", host
    return bytes(request.SerializeToString())
