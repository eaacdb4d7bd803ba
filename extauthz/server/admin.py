"""The admin port: a very small HTTP server whose pages are functions. It shares no thread and no lock with Check calls.

One request a connection, a bounded number of connections, a deadline for each: nothing that a client of this port does
holds anything up but other clients of this port. Which pages there are is `pages`.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from threading import BoundedSemaphore, Thread

from extauthz.server import listeners
from extauthz.server.listeners import Address

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
MAX_REQUEST_BYTES = 8 * 1024
REQUEST_SECONDS = 5.0
"""For reading one request, and again for sending its answer."""

OUT_OF_RESOURCES_SECONDS = 0.1
"""How long accepting pauses when the process has no file descriptors left."""

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: bytes
    content_type: str = PLAIN
    status: HTTPStatus = HTTPStatus.OK


Routes = Mapping[tuple[str, str], Callable[[], Page]]
"""Method and path (without query) -> what makes the page."""


class AdminServer:
    """Listens from construction on, answers from `start` on. Raises UsageError for an address that cannot be had."""

    def __init__(self, address: Address, mode: int = 0o660) -> None:
        self._listener = listeners.bind(address, mode=mode, option="--admin")
        self.address = listeners.bound(self._listener)
        self._inode = os.stat(self.address.path).st_ino if self.address.is_unix else 0
        self._routes: Routes = {}
        self._places = BoundedSemaphore(MAX_CONNECTIONS)
        self._stopped = False

    def start(self, routes: Routes) -> None:
        """Answer with `routes` from now on."""
        self._routes = routes
        Thread(target=self._accept, name="admin", daemon=True).start()

    def stop(self) -> None:
        """Accept no more."""
        self._stopped = True
        with suppress(OSError):
            # Closing alone does not wake a thread that is blocked in accept.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self.address.is_unix:
            listeners.remove_unix_path(self.address.path, self._inode)

    def _accept(self) -> None:
        while not self._stopped:
            self._places.acquire()
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                self._places.release()
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    time.sleep(OUT_OF_RESOURCES_SECONDS)
                continue
            Thread(target=self._serve, args=(connection,), name="admin-request", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                request = _read_head(connection)
                if request:
                    method, page = self._answer(request)
                    _send(connection, page, with_body=method != "HEAD")
        except OSError:
            pass  # The client has left, or was too slow.
        finally:
            self._places.release()

    def _answer(self, head: bytes) -> tuple[str, Page]:
        try:
            method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        except ValueError:
            return "GET", _error(HTTPStatus.BAD_REQUEST)
        if not version.startswith("HTTP/1."):
            return "GET", _error(HTTPStatus.BAD_REQUEST)
        path = target.partition("?")[0]
        make = self._routes.get(("GET" if method == "HEAD" else method, path))
        if make is None:
            known = any(path == other for _, other in self._routes)
            return method, _error(HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND)
        try:
            return method, make()
        except Exception:
            _log.exception("the admin page %s failed", path)
            return method, _error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _read_head(connection: socket.socket) -> bytes:
    """The request line and headers; empty when the client sends none in time. Bodies are not read: no page has one."""
    deadline = time.monotonic() + REQUEST_SECONDS
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_REQUEST_BYTES:
            return b""
        left = deadline - time.monotonic()
        if left <= 0:
            return b""
        connection.settimeout(left)
        received = connection.recv(4096)
        if not received:
            return b""
        head += received
    return head


def _send(connection: socket.socket, page: Page, *, with_body: bool) -> None:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    connection.settimeout(REQUEST_SECONDS)
    connection.sendall(head + page.body if with_body else head)
    connection.shutdown(socket.SHUT_WR)
    # What the client has sent beyond its headers must be read, or closing resets the connection under the answer.
    with suppress(TimeoutError):
        connection.settimeout(0.2)
        for _ in range(MAX_REQUEST_BYTES // 4096):
            if not connection.recv(4096):
                return


def _error(status: HTTPStatus) -> Page:
    return Page(f"{status.value} {status.phrase}\n".encode(), status=status)
