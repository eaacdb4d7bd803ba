"""The admin port's HTTP: pages, what is not a page, clients that misbehave."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import pytest

from extauthz.errors import UsageError
from extauthz.server import admin, listeners
from extauthz.server.admin import AdminServer, Page
from extauthz.server.listeners import Address


def broken() -> Page:
    raise RuntimeError("a bug")


@pytest.fixture
def server() -> Iterator[AdminServer]:
    """An admin server with a few pages."""
    running = AdminServer(Address(host="127.0.0.1"))
    running.start(
        {
            ("GET", "/page"): lambda: Page(b"text\n"),
            ("GET", "/teapot"): lambda: Page(b"{}", admin.JSON, HTTPStatus.IM_A_TEAPOT),
            ("GET", "/broken"): broken,
            ("POST", "/act"): lambda: Page(b"done\n"),
        }
    )
    yield running
    running.stop()


def ask(server: AdminServer, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.headers["content-type"], response.read()
    finally:
        connection.close()


def raw(server: AdminServer, data: bytes) -> bytes:
    with socket.create_connection((server.address.host, server.address.port), timeout=30) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(4096):
            received += part
        return received


def test_pages_are_answered_with_status_and_type(server: AdminServer) -> None:
    assert ask(server, "GET", "/page") == (200, "text/plain; charset=utf-8", b"text\n")
    assert ask(server, "GET", "/page?x=1") == (200, "text/plain; charset=utf-8", b"text\n")
    assert ask(server, "GET", "/teapot") == (418, "application/json", b"{}")
    assert ask(server, "HEAD", "/page") == (200, "text/plain; charset=utf-8", b"")


def test_methods_and_paths_are_told_apart(server: AdminServer) -> None:
    assert ask(server, "GET", "/nothing")[0] == 404
    assert ask(server, "GET", "/act")[0] == 405
    assert ask(server, "POST", "/page")[0] == 405
    assert ask(server, "POST", "/act", b"a body that nobody reads")[2] == b"done\n"


def test_a_page_that_fails_is_a_500_without_details(server: AdminServer) -> None:
    assert ask(server, "GET", "/broken") == (500, "text/plain; charset=utf-8", b"500 Internal Server Error\n")
    assert ask(server, "GET", "/page")[0] == 200


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"GET /page\r\n\r\n", b"GET /page SPDY/3\r\n\r\n", b"\xff \xff HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_a_400(server: AdminServer, data: bytes) -> None:
    assert raw(server, data).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_endless_headers_are_cut_off(server: AdminServer) -> None:
    with suppress(ConnectionError):
        assert raw(server, b"GET /page HTTP/1.1\r\n" + b"x: y\r\n" * 100_000) == b""
    assert ask(server, "GET", "/page")[0] == 200


def test_slow_clients_are_few_and_given_up_on(server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than a client may be late between connecting and asking, and much shorter than clients are idle here.
    monkeypatch.setattr(admin, "REQUEST_SECONDS", 2.5)
    began = time.monotonic()
    idle = [
        socket.create_connection((server.address.host, server.address.port)) for _ in range(admin.MAX_CONNECTIONS + 5)
    ]
    assert ask(server, "GET", "/page")[0] == 200
    assert time.monotonic() - began > 2.4, "more clients than may be there at once"
    for connection in idle:
        connection.close()


def test_the_address_is_refused_as_that_of_its_option() -> None:
    with listeners.bind(Address(host="127.0.0.1")) as taken, pytest.raises(UsageError, match=r"--admin .*: in use"):
        AdminServer(listeners.bound(taken))


def test_it_listens_on_a_unix_socket_too(tmp_path: Path) -> None:
    path = str(tmp_path / "admin")
    running = AdminServer(Address(path=path))
    running.start({("GET", "/page"): lambda: Page(b"text\n")})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"GET /page HTTP/1.1\r\n\r\n")
        assert connection.recv(4096).endswith(b"text\n")
    running.stop()
    assert not Path(path).exists()


def test_nothing_is_answered_after_stop(loopback: str) -> None:
    server = AdminServer(Address(host=loopback))
    server.start({("GET", "/page"): lambda: Page(b"text\n")})
    assert ask(server, "GET", "/page")[0] == 200
    server.stop()
    with pytest.raises(OSError, match=r"refused|reset"):
        ask(server, "GET", "/page")
