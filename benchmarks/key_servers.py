"""A key server that answers in every wrong way there is; run as a program it prints a ready line with its address.

`/good?N` is a key set that has nothing to do with the tokens of the measurement.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from extauthz.minting import SigningKey, key_set

Answer = Callable[[BaseHTTPRequestHandler], None]

_NICENESS = 19
"""It shares a core with the load, and what it spends there is not what is measured."""


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer with its length."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def failures() -> Mapping[str, Answer]:
    """The ways to fail that need a server."""
    return {
        "slow": lambda handler: time.sleep(4),
        "huge": answer(200, b" " * (20 * 1024 * 1024)),
        "html": answer(200, b"<html>" * 100),
        "junk": answer(200, json.dumps({"a": list(range(20_000))}).encode()),
        "error": answer(503),
        "loop": answer(302, location="/loop"),
        "empty": answer(200),
        "cut": answer(200, b"{", **{"content-length": "100"}),
    }


def failing_urls(address: str) -> list[str]:
    """Twelve URLs of key sets of which none can be had, each for a reason of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    return [
        *(f"http://{address}/{name}" for name in failures()),
        f"http://127.0.0.1:{closed}/keys",
        f"https://{address}/error",
        "http://no-such-host.invalid/keys",
        "http://169.254.169.254/keys",
    ]


def main() -> None:
    """Serve on a free local port until ended."""
    os.nice(_NICENESS)
    good = answer(200, json.dumps(key_set(SigningKey.generate("ES256", "other"))).encode())
    ways = {f"/{name}": way for name, way in failures().items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                ways.get(self.path.partition("?")[0], good)(self)

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"ready 127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
