"""Remote key sets behind the real Envoy: keys that rotate under full load, fetches that fail beside calls.

FETCH_SECONDS says how long each part runs (6); a thorough run takes 60.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from extauthz.mesh.envoy import run_envoy
from extauthz.minting import SigningKey, key_set

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

SECONDS = float(os.environ.get("FETCH_SECONDS", "6"))
PATIENCE = 60.0
REFRESH = 0.3
RATE = 500

RULES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
"""
POLICY = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tokens-only, namespace: shop}
spec:
  action: DENY
  rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]
"""

# Reads the token again every hundredth request (the file is replaced as a whole), and says how often it has.
WRK_SCRIPT = """
local path, count, token, read = os.getenv("TOKEN_FILE"), 0, "", 0
request = function()
  if count % 100 == 0 then
    local file = io.open(path)
    local found = file:read("*a")
    file:close()
    read = found == token and read + 1 or 1
    token = found
    local said = io.open(path .. ".said", "w")
    said:write(read, " ", token, ".")
    said:close()
  end
  count = count + 1
  return wrk.format("GET", "/a", {["Authorization"] = "Bearer " .. token})
end
"""


@dataclass
class KeyServer:
    """Answers `/NAME` by what `paths[NAME]` does with the handler, and counts what was asked when it has answered."""

    paths: dict[str, Callable[[BaseHTTPRequestHandler], object]] = field(default_factory=dict)
    answered: int = 0
    port: int = 0

    def url(self, name: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    """A key server."""
    made = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                made.paths[self.path[1:]](self)
            made.answered += 1

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer for `KeyServer.paths`."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def documents(*made: SigningKey) -> Callable[[BaseHTTPRequestHandler], None]:
    """A key set as an answer."""
    return answer(200, json.dumps(key_set(*made)).encode())


@dataclass
class Served:
    """A server that runs, and its admin port."""

    socket: Path
    admin: str

    def key_sets(self) -> list[Mapping[str, Any]]:
        """What /policies says of them."""
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"http://{self.admin}/policies", timeout=PATIENCE) as page:
            found: list[Mapping[str, Any]] = json.load(page)["key_sets"]
        return found


@contextmanager
def served(directory: Path, policies: str, transport: str, *options: str) -> Iterator[Served]:
    """`extauthz serve` at a Unix socket, until the end."""
    file, path = directory / "policies.yaml", directory / "s"
    file.write_text(policies)
    command = [
        *(sys.executable, "-m", "extauthz", "serve", "--policy", str(file), "--transport", transport),
        *("--listen", f"unix:{path}", "--admin", "127.0.0.1:0", "--drain", "0", *options),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = ""
        while not (" ready on " in said and "admin port on" in said):
            line = process.stderr.readline()
            assert line, said
            said += line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Served(path, said.partition("admin port on ")[2].split()[0])
    finally:
        process.terminate()
        process.wait(PATIENCE)


def asked(address: tuple[str, int], token: str) -> tuple[int, str]:
    """What a request with this token is answered."""
    connection = HTTPConnection(*address, timeout=2 * PATIENCE)
    try:
        connection.request("GET", "/a", headers={"authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.01)


class Rotation:
    """New keys, each announced before it signs, and withdrawn when the next one does.

    There are two key ids in turn, so that a withdrawn key shares its id with one that is announced.
    """

    def __init__(self, keys: KeyServer, token_file: Path) -> None:
        self._keys, self._token_file = keys, token_file
        self._made = [self._new(number) for number in range(2)]
        self._publish()
        self._use(0)
        self.rotations = 0
        self.withdrawn_answers: list[tuple[int, str]] = []

    def run(self, address: tuple[str, int], rotations: int) -> None:
        """Rotate; after each withdrawal and the fetch that follows it, ask with a token that was good just before."""
        for _ in range(rotations):
            # The announced key signs from here on; in flight are still tokens of the one before.
            self._use(1)
            self._wait_for_load(self._made[1][1])
            _, withdrawn = self._made.pop(0)
            self._made.append(self._new(self.rotations))
            self._publish()
            self._wait_for_fetches()
            self.withdrawn_answers.append(asked(address, withdrawn))
            self.rotations += 1

    @staticmethod
    def _new(number: int) -> tuple[SigningKey, str]:
        key = SigningKey.generate("ES256", "ab"[number % 2])
        # One token for each key: it is in the cache of verified tokens.
        return key, key.token({"iss": "issuer", "sub": "someone", "exp": 4_102_444_800})

    def _publish(self) -> None:
        self._keys.paths["rotating"] = documents(*(key for key, _ in self._made))

    def _use(self, index: int) -> None:
        new = self._token_file.with_suffix(".new")
        new.write_text(self._made[index][1])
        new.replace(self._token_file)

    def _wait_for_load(self, token: str) -> None:
        # Three hundred requests later, those with the token before are answered.
        said = self._token_file.with_name(self._token_file.name + ".said")

        def goes_with_it() -> bool:
            times, _, used = (said.read_text() if said.exists() else "").partition(" ")
            return used == f"{token}." and int(times) >= 4

        eventually(goes_with_it)

    def _wait_for_fetches(self) -> None:
        # The first may have begun before what is published now; when a third has come, the second was taken into use.
        before = self._keys.answered
        eventually(lambda: self._keys.answered >= before + 3)


def test_keys_rotate_under_full_load(
    transport: str, keys: KeyServer, tmp_path: Path, asking_envoy: Callable[..., dict[str, Any]]
) -> None:
    wrk = shutil.which("wrk")
    if wrk is None:
        pytest.skip("wrk is not installed (Debian: apt install wrk)")
    rotation = Rotation(keys, tmp_path / "token")
    script = tmp_path / "tokens.lua"
    script.write_text(WRK_SCRIPT)
    rules = f"  - {{issuer: issuer, jwksUri: '{keys.url('rotating')}'}}\n"
    options = ("--jwks-refresh", str(REFRESH), "--jwks-refresh-min", "0.1")
    with (
        served(tmp_path, RULES + rules + POLICY, transport, *options) as server,
        run_envoy(asking_envoy(server.socket, timeout=f"{PATIENCE}s")) as front,
    ):
        address = front.listeners()["in"].addresses[0]
        load = subprocess.Popen(
            [
                *(wrk, "-t1", "-c32", "-d600s", "--timeout", "60s", "-s", str(script)),
                f"http://{address[0]}:{address[1]}",
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKEN_FILE": str(tmp_path / "token")},
        )
        try:
            rotation.run(address, max(3, round(SECONDS / 1.5)))
            load.send_signal(signal.SIGINT)  # on which it sums up
            said, _ = load.communicate(timeout=PATIENCE)
        finally:
            load.kill()
            load.wait()
        (key_sets,) = server.key_sets()
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    print(f"\n{transport}: {requests} requests, {rotation.rotations} rotations, {key_sets['results']} fetches")
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    assert requests > 300 * rotation.rotations
    assert set(rotation.withdrawn_answers) == {(401, "Jwt verification fails")}


def test_fetches_that_fail_or_do_not_end_hold_up_no_call(transport: str, keys: KeyServer, tmp_path: Path) -> None:
    key = SigningKey.generate("ES256", "k")
    (tmp_path / "tokens").write_text(key.token({"iss": "issuer", "sub": "someone", "exp": 4_102_444_800}) + "\n")
    begun, released = threading.Event(), threading.Event()

    def endless(_: BaseHTTPRequestHandler) -> None:
        begun.set()
        released.wait(4 * PATIENCE)

    keys.paths = {
        "endless": endless,
        "huge": answer(200, b" " * (20 * 1024 * 1024)),
        "html": answer(200, b"<html>" * 100),
        "junk": answer(200, json.dumps({"a": list(range(20_000))}).encode()),
        "error": answer(503),
        "loop": answer(302, location="/loop"),
        "empty": answer(200),
        "cut": answer(200, b"{", **{"content-length": "100"}),
    }
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        urls = [
            *map(keys.url, keys.paths),
            f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/keys",
            keys.url("error", "https"),
            "http://no-such-host.invalid/keys",
            "http://169.254.169.254/keys",
        ]
        rules = f"  - {{issuer: issuer, jwks: '{json.dumps(key_set(key))}'}}\n" + "".join(
            f"  - {{issuer: 'i{number}', jwksUri: '{url}', timeout: {10 * PATIENCE}s}}\n"
            for number, url in enumerate(urls)
        )
        options = ("--jwks-wait", "0", "--jwks-refresh", "1", "--jwks-refresh-min", "1")
        with served(tmp_path, RULES + rules + POLICY, transport, *options) as server:
            assert begun.wait(PATIENCE)
            before = failures(server)
            # A call that waits for that fetch is given up before it ends.
            command = [
                *(sys.executable, "-m", "extauthz", "loadtest", "--target", f"unix:{server.socket}", "--json"),
                *("--rate", str(RATE), "--duration", str(SECONDS), "--calibration", "0", "--timeout", str(PATIENCE)),
                *("--tokens", str(tmp_path / "tokens"), "--issuer", "issuer"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 2 * PATIENCE, check=False)
            after = failures(server)
            released.set()
    calls = json.loads(done.stdout)["steps"][0]["calls"]
    print(f"\n{transport}: {calls['asked']} calls, {sum(after.values()) - sum(before.values())} fetches failed")
    assert calls["allowed"] == calls["asked"] > 0
    assert after[keys.url("endless")] == 0
    assert sum(after.values()) > sum(before.values())


def failures(server: Served) -> dict[str, int]:
    """How many fetches of each key set have ended. Fails the test when one has succeeded."""
    states = server.key_sets()
    assert not any(state["available"] for state in states)
    return {state["uri"]: sum(state["results"].values()) for state in states}
