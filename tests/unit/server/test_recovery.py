"""What goes away and comes back: names, directories, readers of pipes; and signals at bad moments."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from extauthz.minting import key_set

Start = Callable[..., Any]

# Put into the server's interpreter: a resolver that knows the key server's name as long as a file is there.
NAMES = """
import os, socket
real = socket.getaddrinfo
def getaddrinfo(host, *arguments, **named):
    if host == "keys.example.com":
        if not os.path.exists(os.environ["TEST_NAMES"]):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        host = "127.0.0.1"
    return real(host, *arguments, **named)
socket.getaddrinfo = getaddrinfo
"""


@contextmanager
def key_server(text: str) -> Iterator[int]:
    """Serves a key set on a free port, each answer on a connection of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_when_names_resolve_no_more_the_last_keys_are_kept(
    serve: Start, story: Any, tmp_path: Path, transport_name: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NAMES)
    names = tmp_path / "names"
    names.touch()
    with key_server(json.dumps(key_set(story.key))) as port:
        url = f"http://keys.example.com:{port}/keys"
        policy = tmp_path / "policy.yaml"
        policy.write_text(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
            "metadata: {name: tokens, namespace: shop}\n"
            f"spec: {{jwtRules: [{{issuer: issuer, jwksUri: '{url}'}}]}}\n"
        )
        server = serve(
            *("--policy", policy, "--transport", transport_name, "--jwks-refresh", "0.2", "--jwks-refresh-min", "0.2"),
            environment={"PYTHONPATH": str(tmp_path), "TEST_NAMES": str(names)},
        )

        def fetched(good: bool) -> float:
            every = float(server.metric("jwks_fetch_total", uri=url))
            success = float(server.metric("jwks_fetch_total", uri=url, result="success"))
            return success if good else every - success

        server.wait_until(lambda: fetched(good=True) >= 1)
        assert server.check("/", story.token) == 200
        names.unlink()
        server.wait_until(lambda: fetched(good=False) >= 2)
        assert server.check("/", story.token) == 200
        assert server.check("/", story.token + "x") == 401
        server.wait_until(lambda: "keys.example.com does not resolve" in server.log)
        before = fetched(good=True)
        names.touch()
        server.wait_until(lambda: fetched(good=True) > before, 30)
        assert server.check("/", story.token) == 200


def test_a_policy_directory_that_comes_back_is_loaded_again(
    serve: Start, policy_file: Path, story: Any, transport_name: str
) -> None:
    server = serve("--policy", policy_file.parent, "--transport", transport_name)
    shutil.rmtree(policy_file.parent)
    server.wait_until(lambda: server.metric("policy_reload_total", result="error") >= 1)
    assert (server.check("/public"), server.check("/private")) == (200, 403)
    assert server.metric("policy_last_reload_successful") == 0
    policy_file.parent.mkdir()
    policy_file.write_text(story.policies(excluded="/new"))
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") >= 1)
    assert (server.check("/new"), server.check("/public")) == (200, 403)
    assert server.metric("policy_last_reload_successful") == 1


def test_a_decision_log_whose_reader_has_gone_drops_lines_and_counts_them(
    serve: Start, policy_file: Path, transport_name: str
) -> None:
    reader, writer = os.pipe()
    server = serve("--policy", policy_file, "--decision-log", "-", "--transport", transport_name, stdout=writer)
    os.close(writer)
    assert server.check("/private") == 403
    server.wait_until(lambda: server.metric("decision_log_lines_total", result="written") == 1)
    os.close(reader)
    assert server.check("/private") == 403
    server.wait_until(lambda: server.metric("decision_log_lines_total", result="dropped") == 1)
    assert server.check("/public") == 200
    assert server.terminate() == 0


def test_a_storm_of_signals_leaves_it_serving_and_ends_it_when_told(
    serve: Start, policy_file: Path, transport_name: str
) -> None:
    server = serve("--policy", policy_file, "--transport", transport_name)
    for _ in range(200):
        server.process.send_signal(signal.SIGHUP)
    assert server.check("/private") == 403
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") >= 1)
    assert server.process.poll() is None
    assert server.terminate() == 0


def test_a_sigterm_right_after_ready_drains(serve: Start, policy_file: Path, transport_name: str) -> None:
    for _ in range(3):
        server = serve("--policy", policy_file, "--transport", transport_name, "--admin", "off", "--drain", "0")
        assert server.terminate() == 0
        assert "drained" in server.log


def test_a_sigterm_before_ready_is_obeyed_though_a_key_server_never_answers(
    serve: Start, transport_name: str, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"
        policy.write_text(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
            "metadata: {name: tokens, namespace: shop}\n"
            f"spec: {{jwtRules: [{{issuer: issuer, jwksUri: '{url}', timeout: 600s}}]}}\n"
        )
        server = serve("--policy", policy, "--transport", transport_name, "--jwks-wait", "600", ready=False)
        server.wait_until(lambda: "loaded" in server.log, 60)
        silent.settimeout(60)
        connection, _ = silent.accept()
        assert server.terminate() == 0
        connection.close()


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="there is no read-only file system to write to")
def test_a_read_only_file_system_costs_decision_log_lines_only(serve: Start, policy_file: Path) -> None:
    server = serve("--policy", policy_file, "--decision-log", "/sys/kernel/extauthz-decisions")
    assert server.check("/private") == 403
    server.wait_until(lambda: server.metric("decision_log_lines_total", result="dropped") == 1)
    assert server.check("/public") == 200
