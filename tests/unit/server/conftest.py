"""Transports in this process, servers in processes of their own, clients for both, and policies for them to serve."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauthz.checkapi.build import check_request
from extauthz.minting import SigningKey, key_set
from extauthz.protos.external_auth_pb2 import CheckResponse
from extauthz.server import native, transports
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, DEFAULT_LIMITS, Handler, Limits, Transport

DEFAULT_TRANSPORT = os.environ.get("EXTAUTHZ_TEST_TRANSPORT", "")
"""For servers whose test names none; blank for the program's own choice, which is native where it is built."""

PATIENCE = 30.0
"""Seconds for what is only late on a busy machine."""


@pytest.fixture
def loopback() -> str:
    """A loopback address that no other test process uses: a port that was given up there is not taken by a stranger."""
    pid = os.getpid()
    return f"127.{64 | pid >> 16 & 63}.{pid >> 8 & 255}.{pid & 255}"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody listens on, kept from those who look for a free one."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(params=["grpcio", "native"])
def transport_name(request: pytest.FixtureRequest) -> str:
    """Each transport in turn; the native one is passed over where it was not built."""
    if request.param == "native" and not (availability := native.available())[0]:
        pytest.skip(f"the native transport is not available: {availability[1]}")
    return str(request.param)


class Running:
    """A transport that answers, and a channel to it."""

    def __init__(self, transport: Transport, addresses: list[Address], stack: ExitStack) -> None:
        self.transport = transport
        self.addresses = addresses
        self._stack = stack
        self.channel = self.open_channel()

    @property
    def target(self) -> str:
        return str(self.addresses[0])

    def open_channel(self, *options: tuple[str, Any]) -> grpc.Channel:
        """A connection of its own."""
        own = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", -1),
            *options,
        )
        return self._stack.enter_context(grpc.insecure_channel(self.target, options=own))

    def call(
        self, message: bytes = b"", *, method: str = CHECK_METHOD, seconds: float = PATIENCE, **more: Any
    ) -> bytes:
        """One call; raises grpc.RpcError."""
        return bytes(self.channel.unary_unary(method)(message, timeout=seconds, wait_for_ready=True, **more))


StartTransport = Callable[..., Running]


@pytest.fixture
def start(transport_name: str) -> Iterator[StartTransport]:
    """Starts transports of one kind; they are stopped at the end."""
    with ExitStack() as stack:

        def start(
            handlers: Handler | Mapping[str, Handler],
            limits: Limits = DEFAULT_LIMITS,
            *,
            listen: str = "",
            host: str = "127.0.0.1",
            serving: bool = True,
        ) -> Running:
            by_path = handlers if isinstance(handlers, Mapping) else {CHECK_METHOD: handlers}
            address = Address(path=listen) if listen else Address(host=host)
            transport, _ = transports.make(transport_name, [address], by_path, limits)
            stack.callback(transport.stop)
            addresses = list(transport.bind())
            transport.start()
            transport.set_serving(serving)
            return Running(transport, addresses, stack)

        yield start


@dataclass(frozen=True)
class Story:
    """The policies of the README's story, and a token that they accept."""

    key: SigningKey

    @property
    def token(self) -> str:
        """A token that is good for an hour."""
        return self.key.token({"iss": "issuer", "sub": "someone", "exp": int(time.time()) + 3600})

    def policies(self, *, excluded: str = "/public") -> str:
        """Without a token only `excluded` is allowed; tokens must be good everywhere."""
        return f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: istio-system}}
spec:
  jwtRules:
  - issuer: issuer
    jwks: '{json.dumps(key_set(self.key))}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: exclude, namespace: istio-system}}
spec:
  action: DENY
  rules:
  - from: [{{source: {{notRequestPrincipals: ["*"]}}}}]
    to: [{{operation: {{notPaths: ["{excluded}"]}}}}]
"""


@pytest.fixture(scope="session")
def story() -> Story:
    """One key for the session: making them takes time."""
    return Story(SigningKey.generate("RS256", "key-1"))


@pytest.fixture
def policy_file(story: Story, tmp_path: Path) -> Path:
    """The story's policies in a file."""
    path = tmp_path / "policies" / "policies.yaml"
    path.parent.mkdir()
    path.write_text(story.policies())
    return path


class KeyServer:
    """Serves a key set, or whatever a test wants instead."""

    def __init__(self, body: str) -> None:
        self.status, self.body, self.asked = 200, body, 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked += 1
                data = owner.body.encode()
                self.send_response(owner.status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def keys(story: Any) -> Iterator[KeyServer]:
    """A server of the story's key set."""
    server = KeyServer(json.dumps(key_set(story.key)))
    yield server
    server.close()


def request_for(path: str = "/", token: str = "", **headers: str) -> bytes:
    """A CheckRequest about GET `path`."""
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if token:
        lines.append(("authorization", f"Bearer {token}"))
    message = check_request("GET", path, lines, host="example.com")
    assert message is not None
    return message


class Serve:
    """An `extauthz serve` process. Its standard error is read all the time."""

    def __init__(self, arguments: list[str], *, environment: Mapping[str, str] | None = None, **popen: Any) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EXTAUTHZ_")}
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*popen.pop("prefix", ()), sys.executable, "-m", "extauthz", "serve", *arguments],
            stdin=popen.pop("stdin", subprocess.DEVNULL),
            stdout=popen.pop("stdout", subprocess.DEVNULL),
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, **(environment or {})},
            **popen,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._channels: dict[str, grpc.Channel] = {}

    def _read(self) -> None:
        assert self.process.stderr is not None
        with suppress(OSError):  # a test may close it
            self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def wait_ready(self, seconds: float = 60.0) -> Serve:
        self.wait_until(lambda: " ready on " in self.log or self.process.poll() is not None, seconds)
        assert " ready on " in self.log, self.log
        return self

    @property
    def addresses(self) -> list[str]:
        match = re.search(r" ready on (.*)", self.log)
        assert match
        return match[1].split(", ")

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen in {seconds} s:\n{self.log}"
            time.sleep(0.02)

    def check(
        self, path: str = "/", token: str = "", *, address: str = "", seconds: float = PATIENCE, **headers: str
    ) -> int:
        """One decision: 200, or the status of the denial."""
        response = CheckResponse.FromString(self.call(request_for(path, token, **headers), address, seconds))
        if response.status.code == 0:
            return 200
        assert response.HasField("denied_response")
        return int(response.denied_response.status.code)

    def call(self, message: bytes, address: str = "", seconds: float = PATIENCE, method: str = CHECK_METHOD) -> bytes:
        address = address or self.addresses[0]
        if address not in self._channels:
            # A pool of its own: shared connections would hide which process answers.
            options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
            self._channels[address] = grpc.insecure_channel(address, options)
        call = self._channels[address].unary_unary(method)
        return bytes(call(message, timeout=seconds, wait_for_ready=True))

    def hang_up(self) -> None:
        """Close the connections: the next calls are made over new ones."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def admin(self, path: str, method: str = "GET") -> tuple[int, str]:
        """A page of the admin port: status and body."""
        self.wait_until(lambda: "admin port on" in self.log)
        match = re.search(r"admin port on (\S+)", self.log)
        assert match
        opener = build_opener(ProxyHandler({}))
        try:
            with opener.open(Request(f"http://{match[1]}{path}", method=method), timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def page(self, path: str) -> Any:
        """A JSON page of the admin port."""
        return json.loads(self.admin(path)[1])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        families = text_string_to_metric_families(self.admin("/metrics")[1])
        samples = (sample for family in families for sample in family.samples)
        return sum(s.value for s in samples if s.name == f"extauthz_{name}" and labels.items() <= s.labels.items())

    def terminate(self) -> int:
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """The exit status, once all that it said is in the log."""
        status = self.process.wait(60)
        self._reader.join(PATIENCE)
        return status

    def close(self) -> None:
        self.hang_up()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self._reader.join(5)


def replace(path: Path, text: str) -> None:
    """Change a file in one step: between two of them a server may look, however short the time."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture(name="replace")
def replace_fixture() -> Callable[[Path, str], None]:
    """See `replace`."""
    return replace


StartServe = Callable[..., Serve]


@pytest.fixture
def serve() -> Iterator[StartServe]:
    """Starts servers on free ports with a quick drain; they are ended at the end."""
    with ExitStack() as stack:

        def start(*arguments: object, ready: bool = True, **popen: Any) -> Serve:
            given = [str(argument) for argument in arguments]
            defaults = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", "--drain": "0.2"}
            if DEFAULT_TRANSPORT and "--tls-cert" not in given:
                defaults["--transport"] = DEFAULT_TRANSPORT
            for option, value in defaults.items():
                if option not in given:
                    given += [option, value]
            server = Serve(given, **popen)
            stack.callback(server.close)
            return server.wait_ready() if ready else server

        yield start
