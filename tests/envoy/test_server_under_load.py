"""Nothing beside the calls holds one up: reloads of many rules, scrapes, a stuck log, floods of new tokens.

How long a call takes is this machine's to say, what it waits for is not: calls begin and end while a reload goes on,
and all are answered though the log is stuck for ever.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from extauthz.mesh.envoy import run_envoy
from extauthz.minting import SigningKey, key_set

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

SECONDS = float(os.environ.get("LOAD_SECONDS", "8"))
RATE = 300
CLIENTS = 4
PATIENCE = 60
RULES = 5_000
LARGE_TOKENS = 1_000

AUTHENTICATION = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec:
  jwtRules: [{{issuer: issuer, jwks: '{jwks}'}}]
"""
POLICY = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p{number}, namespace: shop}}
spec:
  action: DENY
  rules:
  - from: [{{source: {{requestPrincipals: ["issuer/user-{number}"]}}}}]
    to: [{{operation: {{paths: ["/secret/{number}/*", "/x/{number}"], methods: ["GET", "POST"]}}}}]
"""


@pytest.fixture(scope="module")
def key() -> SigningKey:
    """One key for all."""
    return SigningKey.generate("ES256")


class Beside:
    """Things that go on until the end, each in a thread; what fails in one of them fails the test."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def run(self, act: Callable[[], object], pause: float) -> None:
        def repeat() -> None:
            try:
                while not self.ended.wait(pause):
                    act()
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        self._threads.append(thread)

    def end(self) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)


@pytest.fixture
def beside() -> Iterator[Beside]:
    """What goes on beside the load."""
    made = Beside()
    yield made
    made.end()


def test_no_request_is_held_up(
    transport: str, tmp_path: Path, key: SigningKey, beside: Beside, asking_envoy: Callable[..., dict[str, Any]]
) -> None:
    policies, fifo = tmp_path / "policies.yaml", tmp_path / "fifo"
    text = AUTHENTICATION.format(jwks=json.dumps(key_set(key)))
    policies.write_text(text + "".join(POLICY.format(number=number) for number in range(RULES)))
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # never read from
    command = [
        *(sys.executable, "-m", "extauthz", "serve", "--policy", str(policies), "--transport", transport),
        *("--listen", f"unix:{tmp_path}/s", "--admin", "127.0.0.1:0", "--admin-reload", "--decision-log", str(fifo)),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while not (" ready on " in said and "admin port on" in said):
        line = process.stderr.readline()
        assert line, said
        said += line
    threading.Thread(target=process.stderr.read, daemon=True).start()
    admin_port = said.partition("admin port on ")[2].split()[0]
    opener = build_opener(ProxyHandler({}))
    exp = int(time.time()) + 3600
    large = [
        key.token({"iss": "issuer", "sub": f"s{n}", "exp": exp, "pad": str(n) * (12_000 // len(str(n)))})
        for n in range(LARGE_TOKENS)
    ]
    try:
        with run_envoy(asking_envoy(tmp_path / "s", timeout=f"{PATIENCE}s")) as front:
            address = front.listeners()["in"].addresses[0]
            before = _processor_seconds(process.pid)
            _ask(address, "/first", "")
            first = _processor_seconds(process.pid) - before
            beside.run(lambda: opener.open(f"http://{admin_port}/metrics", timeout=PATIENCE).read(), 0.05)
            reload = Request(f"http://{admin_port}/reload", method="POST")
            reloads: list[Span] = []

            def reload_all() -> None:
                began = time.monotonic()
                opener.open(reload, timeout=PATIENCE).read()
                reloads.append((began, time.monotonic()))

            beside.run(reload_all, 0.5)
            beside.run(lambda: large and _ask(address, "/large", large.pop()), 0.005)
            statuses, calls = _load(address, key.token({"iss": "issuer", "sub": "someone", "exp": exp}))
            beside.end()
    finally:
        process.kill()
        process.wait()
        os.close(reader)
    assert beside.errors == []
    assert first < 0.2
    assert set(statuses) == {200}
    assert reloads
    during = sum(began < call[0] and call[1] < ended for began, ended in reloads for call in calls)
    print(f"\n{transport}: {len(reloads)} reloads, {during} calls within them", end="")
    assert during >= len(reloads)


Span = tuple[float, float]
"""When something began, and when it had ended."""


def _load(address: tuple[str, int], token: str) -> tuple[Counter[int], list[Span]]:
    """The requests of SECONDS at RATE a second, slower where this machine is; their answers, and when they were."""
    statuses: Counter[int] = Counter()
    calls: list[Span] = []

    def client() -> None:
        connection = http.client.HTTPConnection(*address, timeout=2 * PATIENCE)
        for _ in range(round(RATE * SECONDS / CLIENTS)):
            began = time.monotonic()
            connection.request("GET", "/a", headers={"authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
            calls.append((began, time.monotonic()))
            statuses[response.status] += 1
            time.sleep(max(0.0, CLIENTS / RATE - (time.monotonic() - began)))

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return statuses, calls


def _processor_seconds(process: int) -> float:
    """What a process has used: unlike the time that passes, no other process adds to it."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ask(address: tuple[str, int], path: str, token: str) -> None:
    connection = http.client.HTTPConnection(*address, timeout=2 * PATIENCE)
    connection.request("GET", path, headers={"authorization": f"Bearer {token}"} if token else {})
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200, path
